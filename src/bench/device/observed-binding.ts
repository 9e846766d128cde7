import type { NativeBinding } from '../../engine/binding.js';
import { COMM_OPS } from '../../engine/op-table.js';
import { opCost, operands, type CallCost } from './call-cost.js';

const COMM_OP_LIST = Object.values(COMM_OPS);

/** Work that is about to be enqueued. */
export interface ObservedCall {
  /** To be asked for before the call is issued, if at all: it takes time, and reads the arguments. */
  readonly cost: () => CallCost;
  readonly stream: number;
  /** Between ranks: what a link moves, not what memory does. */
  readonly communication: boolean;
}

/**
 * The same binding, whose calls that enqueue work go through `observe`, which must call `issue` once and at once: the
 * arguments lie in the shared buffer.
 */
export function observedBinding(
  binding: NativeBinding,
  observe: (call: ObservedCall, issue: () => void) => void,
): NativeBinding {
  const { args } = binding;
  const bytes = (index: number): number => args[4 * index + 2] ?? 0;
  const communicate = (name: string, moved: () => number, stream: number, issue: () => void): void => {
    observe({ cost: () => ({ name, bytes: moved(), flops: 0 }), stream, communication: true }, issue);
  };
  const observed: Partial<NativeBinding> = {
    run: (device, stream, op, nt, ns) => {
      observe({ cost: () => opCost(op, args, nt, ns), stream, communication: false }, () => {
        binding.run(device, stream, op, nt, ns);
      });
    },
    copy: (device, stream) => {
      const cost = (): CallCost => ({ name: 'copy', bytes: bytes(0) + bytes(1), flops: 0 });
      observe({ cost, stream, communication: false }, () => {
        binding.copy(device, stream);
      });
    },
    allReduce: (comm, stream, n, reduce) => {
      communicate(
        'all_reduce',
        () => bytes(0),
        stream,
        () => {
          binding.allReduce(comm, stream, n, reduce);
        },
      );
    },
    reduceScatter: (comm, stream, n, reduce) => {
      communicate(
        'reduce_scatter',
        () => bytes(0),
        stream,
        () => {
          binding.reduceScatter(comm, stream, n, reduce);
        },
      );
    },
    allGather: (comm, stream, n) => {
      communicate(
        'all_gather',
        () => bytes(1),
        stream,
        () => {
          binding.allGather(comm, stream, n);
        },
      );
    },
    commRun: (comm, stream, op, nt, ns) => {
      const { name } = COMM_OP_LIST[op] ?? { name: `communicator op ${op}` };
      // A reduce-scatter of the partial sums, and an all-gather of as much.
      communicate(
        name,
        () => 2 * bytes(0),
        stream,
        () => {
          binding.commRun(comm, stream, op, nt, ns);
        },
      );
    },
    broadcast: (comm, stream, n, root) => {
      communicate(
        'broadcast',
        () => bytes(0),
        stream,
        () => {
          binding.broadcast(comm, stream, n, root);
        },
      );
    },
    p2p: (comm, stream, transfers) => {
      const moved = (): number =>
        operands(transfers, transfers.length / 6).reduce((sum, operand) => sum + operand.bytes, 0);
      communicate('send/receive', moved, stream, () => {
        binding.p2p(comm, stream, transfers);
      });
    },
    allToAll: (comm, stream, counts) => {
      communicate(
        'all_to_all',
        () => bytes(0),
        stream,
        () => {
          binding.allToAll(comm, stream, counts);
        },
      );
    },
  };
  // The addon's own functions cannot be copied: they are not enumerable.
  return Object.create(binding, Object.getOwnPropertyDescriptors(observed)) as NativeBinding;
}
