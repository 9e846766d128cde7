import type { PodTemplateSpec } from 'kubernetes-types/core/v1.js';
import type { ObjectMeta } from 'kubernetes-types/meta/v1.js';
import { metadataOf, podTemplate, type K8sJob } from './k8s-pod.js';

interface ReplicaSpec {
  readonly replicas: number;
  readonly restartPolicy: 'OnFailure' | 'Never';
  readonly template: PodTemplateSpec;
}

/** PyTorchJob of Kubeflow's training operator, as far as it is used here (kubeflow.org/v1). */
export interface PyTorchJob {
  readonly apiVersion: 'kubeflow.org/v1';
  readonly kind: 'PyTorchJob';
  readonly metadata: ObjectMeta;
  readonly spec: {
    readonly nprocPerNode: string;
    readonly runPolicy: { readonly backoffLimit: number; readonly cleanPodPolicy: 'Running' };
    readonly pytorchReplicaSpecs: { readonly Master: ReplicaSpec; readonly Worker?: ReplicaSpec };
  };
}

/** The operator looks for a container and a port of these names. */
const CONTAINER = 'pytorch';
const PORT = { name: 'pytorchjob-port', containerPort: 23_456 };
/** What a pod's name has behind the job's. */
const SUFFIX = '-worker-'.length;

/** As for a JobSet. */
export function longestPyTorchJobName(nodes: number): number {
  return 63 - SUFFIX - String(nodes).length;
}

/**
 * A PyTorchJob: the first node is its master, the others are its workers. A pod that fails starts again in its place, and
 * so do those that lost it. The operator tells no exit codes of ours apart: it counts restarts alone, those of every pod.
 */
export function pyTorchJob(job: K8sJob): PyTorchJob {
  const { nodes, nproc, maxRestarts } = job;
  const template = podTemplate(job, {
    container: CONTAINER,
    nodeRank: '$(PET_NODE_RANK)',
    endpoint: '$(PET_MASTER_ADDR):$(PET_MASTER_PORT)',
    port: PORT,
  });
  const restartPolicy = maxRestarts === 0 ? 'Never' : 'OnFailure';
  const replicas = (count: number): ReplicaSpec => ({ replicas: count, restartPolicy, template });
  return {
    apiVersion: 'kubeflow.org/v1',
    kind: 'PyTorchJob',
    metadata: metadataOf(job, job.name),
    spec: {
      nprocPerNode: String(nproc),
      // The job ends when this is reached, and every pod of it counts each time.
      runPolicy: { backoffLimit: maxRestarts === 0 ? 0 : maxRestarts * nodes + 1, cleanPodPolicy: 'Running' },
      pytorchReplicaSpecs: { Master: replicas(1), ...(nodes === 1 ? {} : { Worker: replicas(nodes - 1) }) },
    },
  };
}
