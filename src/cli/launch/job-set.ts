import type { JobSpec } from 'kubernetes-types/batch/v1.js';
import type { ObjectMeta } from 'kubernetes-types/meta/v1.js';
import { FINAL_CODES, metadataOf, podTemplate, type K8sJob } from './k8s-pod.js';

/** JobSet, as far as it is used here (jobset.x-k8s.io/v1alpha2). */
export interface JobSet {
  readonly apiVersion: 'jobset.x-k8s.io/v1alpha2';
  readonly kind: 'JobSet';
  readonly metadata: ObjectMeta;
  readonly spec: {
    readonly network: { readonly enableDNSHostnames: boolean; readonly subdomain: string };
    readonly failurePolicy: {
      readonly maxRestarts: number;
      readonly rules: readonly {
        readonly name: string;
        readonly action: 'FailJobSet';
        readonly onJobFailureReasons: readonly string[];
      }[];
    };
    readonly replicatedJobs: readonly {
      readonly name: string;
      readonly replicas: number;
      readonly template: { readonly spec: JobSpec };
    }[];
  };
}

const GROUP = 'node';
const CONTAINER = 'mbridge';
const PORT = 29_500;
/** What a pod's name has behind the JobSet's: `-node-0-<index>-<5 letters>`. */
const SUFFIX = `-${GROUP}-0--12345`.length;

/** Of the longest name that its pods can have: names are labels of at most 63 letters. */
export function longestJobSetName(nodes: number): number {
  return 63 - SUFFIX - String(nodes - 1).length;
}

/**
 * A JobSet of one indexed Job, a pod a node. When a pod fails, all of them start again, from the last checkpoint; what
 * would fail again ends the set.
 */
export function jobSet(job: K8sJob): JobSet {
  const { name, nodes, maxRestarts } = job;
  const spec: JobSpec = {
    completionMode: 'Indexed',
    completions: nodes,
    parallelism: nodes,
    backoffLimit: 0,
    podFailurePolicy: {
      rules: [
        { action: 'FailJob', onExitCodes: { containerName: CONTAINER, operator: 'In', values: [...FINAL_CODES] } },
      ],
    },
    template: podTemplate(job, {
      container: CONTAINER,
      restartPolicy: 'Never',
      nodeRank: '$(JOB_COMPLETION_INDEX)',
      endpoint: `${name}-${GROUP}-0-0.${name}:${PORT}`,
      port: { name: 'rendezvous', containerPort: PORT },
    }),
  };
  return {
    apiVersion: 'jobset.x-k8s.io/v1alpha2',
    kind: 'JobSet',
    metadata: metadataOf(job, name),
    spec: {
      network: { enableDNSHostnames: true, subdomain: name },
      failurePolicy: {
        maxRestarts,
        rules: [{ name: 'wouldFailAgain', action: 'FailJobSet', onJobFailureReasons: ['PodFailurePolicy'] }],
      },
      replicatedJobs: [{ name: GROUP, replicas: 1, template: { spec } }],
    },
  };
}
