import type { Env } from './starter.js';

/** What Kubeflow's PyTorchJob tells the process that a pod starts. */
export interface Pod {
  readonly nodes: number;
  /** `PET_NPROC_PER_NODE`: a number, or auto, gpu, cpu; 1 where it is not set. */
  readonly ranks: string;
}

/**
 * The pod of a PyTorchJob that started this process; undefined elsewhere, also where a launcher in the pod did (LOCAL_RANK).
 * RANK is the pod's number there, and WORLD_SIZE the pods by the ranks of each.
 * https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/ (envvar.go of the training operator)
 */
export function podOf(env: Env): Pod | undefined {
  const { PET_NNODES: nodes = '', PET_NPROC_PER_NODE: ranks = '1', LOCAL_RANK: localRank } = env;
  if (!/^[1-9]\d*$/.test(nodes) || env['RANK'] === undefined || localRank !== undefined) return undefined;
  return { nodes: Number(nodes), ranks };
}

/** Whether the process of a pod is to start the pod's ranks, as opposed to being its only one. */
export function startsRanks({ ranks }: Pod): boolean {
  return ranks !== '1';
}
