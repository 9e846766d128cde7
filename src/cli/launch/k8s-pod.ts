import type { Job } from 'kubernetes-types/batch/v1.js';
import type { ConfigMap, Container, EnvVar, PodTemplateSpec, Secret, Volume } from 'kubernetes-types/core/v1.js';
import { EXIT } from '../../base/errors.js';

/** A claim of storage, and where a pod sees it. */
export interface Claim {
  readonly claim: string;
  readonly path: string;
}

/** A run as pods, one a node. */
export interface K8sJob {
  /** A DNS label (RFC 1035). */
  readonly name: string;
  readonly namespace: string | undefined;
  readonly nodes: number;
  /** Ranks of each pod, and its GPUs; undefined on the CPU. */
  readonly nproc: number;
  readonly gpus: number | undefined;
  readonly image: string;
  /** What follows `mbridge`, but for where it runs. */
  readonly words: readonly string[];
  /** The configuration file, by its path in the pods. */
  readonly config: { readonly name: string; readonly text: string } | undefined;
  readonly claims: readonly Claim[];
  /** Size of /dev/shm, and what is asked of the node; quantities of Kubernetes. */
  readonly shmSize: string;
  readonly cpus: string | undefined;
  readonly memory: string | undefined;
  readonly graceS: number;
  readonly maxRestarts: number;
  /** The run's secret, to be made with it, or the name of a Secret with key `token` that is there. */
  readonly token: { readonly value: string } | { readonly secret: string };
}

/** Folder of {@link K8sJob.config} in the pods. */
export const CONFIG_FOLDER = '/etc/mbridge';
/** What would end so again. */
export const FINAL_CODES: readonly number[] = [
  EXIT.internal,
  EXIT.usage,
  EXIT.config,
  EXIT.environment,
  EXIT.io,
  EXIT.diverged,
];

/** The launcher of each node, as one pod's container. */
export interface NodeLauncher {
  /** Name of the container. */
  readonly container: string;
  readonly restartPolicy?: 'Never';
  /** Kubernetes' `$(NAME)` for the node's number, and host:port of the first node. */
  readonly nodeRank: string;
  readonly endpoint: string;
  readonly port: { readonly name: string; readonly containerPort: number };
}

/** The pods of a run. On one node the launcher needs neither a secret nor an address. */
export function podTemplate(job: K8sJob, launcher: NodeLauncher): PodTemplateSpec {
  const { nodes, nproc, image, words, claims, config, graceS } = job;
  const { container: name, nodeRank, endpoint, port, restartPolicy } = launcher;
  const others = nodes === 1 ? [] : ['--nnodes', String(nodes), '--node-rank', nodeRank, '--rdzv-endpoint', endpoint];
  const container: Container = {
    name,
    image,
    command: ['mbridge'],
    args: [...words.map(literal), '--nproc', String(nproc), ...others],
    ...(nodes === 1 ? {} : { env: [tokenVariable(job)] }),
    ports: [{ ...port }],
    resources: resources(job),
    volumeMounts: [
      { name: 'shm', mountPath: '/dev/shm' },
      ...claims.map(({ path }, i) => ({ name: `data-${i}`, mountPath: path })),
      ...(config === undefined ? [] : [{ name: 'config', mountPath: CONFIG_FOLDER, readOnly: true }]),
    ],
  };
  return {
    spec: {
      ...(restartPolicy === undefined ? {} : { restartPolicy }),
      terminationGracePeriodSeconds: graceS,
      containers: [container],
      volumes: volumesOf(job),
    },
  };
}

/** Kubernetes replaces `$(NAME)` in arguments. */
function literal(word: string): string {
  return word.replaceAll('$(', '$$$$(');
}

function tokenVariable({ name, token }: K8sJob): EnvVar {
  const secret = 'secret' in token ? token.secret : secretName(name);
  return { name: 'MBRIDGE_TOKEN', valueFrom: { secretKeyRef: { name: secret, key: 'token' } } };
}

function resources({ gpus, cpus, memory }: K8sJob): NonNullable<Container['resources']> {
  const asked = { ...(cpus === undefined ? {} : { cpu: cpus }), ...(memory === undefined ? {} : { memory }) };
  // GPUs are limits, and so requests of the same number.
  const limits = {
    ...(gpus === undefined ? {} : { 'nvidia.com/gpu': String(gpus) }),
    ...(memory === undefined ? {} : { memory }),
  };
  return { ...(Object.keys(asked).length === 0 ? {} : { requests: asked }), limits };
}

function volumesOf({ name, claims, shmSize, config }: K8sJob): Volume[] {
  return [
    // Collectives, NCCL's too, need more of it than the 64 MiB that a container has.
    { name: 'shm', emptyDir: { medium: 'Memory', sizeLimit: shmSize } },
    ...claims.map(({ claim }, i) => ({ name: `data-${i}`, persistentVolumeClaim: { claimName: claim } })),
    ...(config === undefined ? [] : [{ name: 'config', configMap: { name: configMapName(name) } }]),
  ];
}

/** What the pods need beside them: the run's secret, its configuration file. */
export function companions(job: K8sJob): (Secret | ConfigMap)[] {
  const { name, nodes, token, config } = job;
  const secret: Secret[] =
    nodes === 1 || !('value' in token)
      ? []
      : [
          {
            apiVersion: 'v1',
            kind: 'Secret',
            metadata: metadataOf(job, secretName(name)),
            type: 'Opaque',
            stringData: { token: token.value },
          },
        ];
  const map: ConfigMap[] =
    config === undefined
      ? []
      : [
          {
            apiVersion: 'v1',
            kind: 'ConfigMap',
            metadata: metadataOf(job, configMapName(name)),
            data: { [config.name]: config.text },
          },
        ];
  return [...secret, ...map];
}

export function metadataOf({ namespace }: Pick<K8sJob, 'namespace'>, name: string): NonNullable<Job['metadata']> {
  return { name, ...(namespace === undefined ? {} : { namespace }) };
}

function secretName(name: string): string {
  return `${name}-token`;
}

function configMapName(name: string): string {
  return `${name}-config`;
}
