/** One micro-batch through one of this rank's model chunks. */
export interface ComputeAction {
  readonly kind: 'forward' | 'backward';
  readonly microBatch: number;
  /** Local chunk: chunk c of pipeline rank p is stage c * stages + p of the model. */
  readonly chunk: number;
}

export interface Transfer {
  readonly direction: 'send' | 'receive';
  readonly what: 'activation' | 'gradient';
  /** Pipeline rank at the other end. */
  readonly peer: number;
  readonly microBatch: number;
  /** Local chunk on this rank: the one that produced what is sent, or that will consume what is received. */
  readonly chunk: number;
}

/** Transfers that are issued as one group and progress together; the next action starts when all are issued. */
export interface ExchangeAction {
  readonly kind: 'exchange';
  /** Never empty. Between two ranks, the order of sends on one side is the order of receives on the other. */
  readonly transfers: readonly Transfer[];
}

export type ScheduleAction = ComputeAction | ExchangeAction;

export interface ScheduleShape {
  /** Pipeline ranks (P). */
  readonly stages: number;
  /** Model chunks a rank (V); more than one is interleaved 1F1B. */
  readonly chunks: number;
  /** Micro-batches a step (M). */
  readonly microBatches: number;
  /** Forwards only, for evaluation. */
  readonly forwardOnly?: boolean;
}

export interface Schedule extends Required<ScheduleShape> {
  /** The actions of each pipeline rank, in order. */
  readonly ranks: readonly (readonly ScheduleAction[])[];
}
