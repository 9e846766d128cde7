import { statSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { jobSet, longestJobSetName } from '../../src/cli/launch/job-set.js';
import { companions, type K8sJob } from '../../src/cli/launch/k8s-pod.js';
import { longestPyTorchJobName, pyTorchJob } from '../../src/cli/launch/pytorch-job.js';
import { temporaryFolder } from '../checkpoint/runs.js';
import { mbridge } from './mbridge.js';

const TOKEN = 'f00d'.repeat(8);

const JOB: K8sJob = {
  name: 'qwen3-4b',
  namespace: 'ml',
  nodes: 4,
  nproc: 8,
  gpus: 8,
  image: 'registry/mbridge:0.1',
  words: ['pretrain', 'qwen3-4b', '--tp-size', '8', 'a.b=$(HOME)'],
  config: { name: 'my.yaml', text: 'recipe: qwen3-4b\n' },
  claims: [
    { claim: 'data', path: '/data' },
    { claim: 'scratch', path: '/scratch' },
  ],
  shmSize: '16Gi',
  cpus: '96',
  memory: '1Ti',
  graceS: 600,
  maxRestarts: 3,
  token: { value: TOKEN },
};

/** What the API server and the operators' own checks demand, as far as a manifest of ours has it. */
function problemsOf(documents: readonly unknown[]): string[] {
  const problems: string[] = [];
  const label = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;
  const need = (what: string, holds: unknown): void => {
    if (holds !== true) problems.push(what);
  };
  const names = new Set<string>();
  for (const each of documents as Record<string, never>[]) {
    const { apiVersion, kind, metadata } = each as unknown as {
      apiVersion: string;
      kind: string;
      metadata: { name: string };
    };
    need(`${kind}: apiVersion`, /^(v1|jobset\.x-k8s\.io\/v1alpha2|kubeflow\.org\/v1)$/.test(apiVersion));
    need(`${kind}: name`, label.test(metadata.name));
    names.add(`${kind}/${metadata.name}`);
  }
  const templates = documents.flatMap((document) => {
    const { kind, metadata, spec } = document as { kind: string; metadata: { name: string }; spec: never };
    if (kind === 'JobSet') return templatesOfJobSet(metadata.name, spec, need);
    return kind === 'PyTorchJob' ? templatesOfPyTorchJob(metadata.name, spec, need) : [];
  });
  need('a job', templates.length > 0);
  for (const { spec } of templates) {
    const { containers, volumes, terminationGracePeriodSeconds: grace } = spec;
    const volumeNames = new Set(volumes.map(({ name }) => name));
    need('volumes have names of their own', volumeNames.size === volumes.length);
    need('grace', Number.isInteger(grace) && grace > 0);
    need('one container', containers.length === 1);
    for (const { name, image, command, args, volumeMounts, resources, env = [], ports } of containers) {
      need('container', label.test(name) && image !== '' && command.join() === 'mbridge');
      need(
        'arguments are texts',
        args.every((word) => typeof word === 'string'),
      );
      need(
        'mounts lead to volumes',
        volumeMounts.every((mount) => volumeNames.has(mount.name)),
      );
      const places = volumeMounts.map(({ mountPath }) => mountPath);
      need('mounts have folders of their own', new Set(places).size === places.length);
      need('/dev/shm', places.includes('/dev/shm'));
      need(
        'GPUs',
        resources.limits['nvidia.com/gpu'] === undefined || /^\d+$/.test(resources.limits['nvidia.com/gpu']),
      );
      need(
        'port',
        ports.every((port) => port.name.length <= 15 && port.containerPort > 0),
      );
      need('no secret in sight', !JSON.stringify([args, env]).includes(TOKEN));
      for (const { valueFrom } of env) need('Secret', names.has(`Secret/${valueFrom.secretKeyRef.name}`));
    }
    for (const { configMap, emptyDir, persistentVolumeClaim: claim } of volumes) {
      const kinds = [configMap, emptyDir, claim].filter((kind) => kind !== undefined);
      need('a volume is of one kind', kinds.length === 1);
      if (configMap !== undefined) need('ConfigMap', names.has(`ConfigMap/${configMap.name}`));
      if (emptyDir !== undefined) need('shm', emptyDir.medium === 'Memory' && /^\d+[GM]i$/.test(emptyDir.sizeLimit));
    }
  }
  return problems;
}

type Need = (what: string, holds: unknown) => void;
interface Template {
  spec: {
    restartPolicy?: string;
    terminationGracePeriodSeconds: number;
    containers: {
      name: string;
      image: string;
      command: string[];
      args: string[];
      volumeMounts: { name: string; mountPath: string }[];
      resources: { limits: Record<string, string> };
      env?: { valueFrom: { secretKeyRef: { name: string } } }[];
      ports: { name: string; containerPort: number }[];
    }[];
    volumes: {
      name: string;
      configMap?: { name: string };
      emptyDir?: { medium: string; sizeLimit: string };
      persistentVolumeClaim?: { claimName: string };
    }[];
  };
}

function templatesOfJobSet(name: string, spec: ReturnType<typeof jobSet>['spec'], need: Need): Template[] {
  const { replicatedJobs, failurePolicy, network } = spec;
  need('the headless service is of the name in the endpoint', network.enableDNSHostnames && network.subdomain === name);
  need(
    'rules',
    failurePolicy.rules.every((rule) => /^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$/.test(rule.name)),
  );
  return replicatedJobs.map(({ name: group, replicas, template }) => {
    const { completionMode, completions = 0, parallelism, backoffLimit, podFailurePolicy } = template.spec;
    need('a pod a node, all at once', replicas === 1 && completionMode === 'Indexed' && completions === parallelism);
    need('a pod that fails starts all again', backoffLimit === 0);
    const pod = template.spec.template as unknown as Template;
    need('names of pods', `${name}-${group}-0-${completions - 1}-12345`.length <= 63);
    // Kubernetes has a failure policy only for pods that it does not restart itself.
    need('restartPolicy', pod.spec.restartPolicy === 'Never');
    for (const { action, onExitCodes: codes } of podFailurePolicy?.rules ?? []) {
      need('rule', action === 'FailJob' && codes?.containerName === pod.spec.containers[0]?.name);
      need(
        'codes are sorted, and 0 is none',
        codes?.values.every((code, i, all) => code > (all[i - 1] ?? 0)),
      );
      for (const code of [5, 6]) need(`exit code ${code} is tried again`, codes?.values.includes(code) === false);
      for (const code of [3, 4, 7, 8]) need(`exit code ${code} is final`, codes?.values.includes(code));
    }
    return pod;
  });
}

function templatesOfPyTorchJob(name: string, spec: ReturnType<typeof pyTorchJob>['spec'], need: Need): Template[] {
  const { Master: master, Worker: worker } = spec.pytorchReplicaSpecs;
  need('nprocPerNode is a text', /^\d+$/.test(spec.nprocPerNode));
  need('one master', master.replicas === 1);
  const all = [master, ...(worker === undefined ? [] : [worker])];
  need('names of pods', `${name}-worker-${worker?.replicas ?? 0}`.length <= 63);
  return all.map(({ template, replicas, restartPolicy }) => {
    const pod = template as unknown as Template;
    need('replicas', replicas >= 1);
    need('restartPolicy', ['OnFailure', 'Never'].includes(restartPolicy) && pod.spec.restartPolicy === undefined);
    const [container] = pod.spec.containers;
    need('the operator finds container and port', container?.name === 'pytorch');
    need('the operator finds the port', container?.ports[0]?.name === 'pytorchjob-port');
    return pod;
  });
}

const longest = { jobset: longestJobSetName, pytorchjob: longestPyTorchJobName };
test.each<[string, Partial<K8sJob>]>([
  ['four nodes', {}],
  ['one node', { nodes: 1 }],
  [
    'the CPU',
    { nodes: 1, gpus: undefined, nproc: 2, cpus: undefined, memory: undefined, claims: [], config: undefined },
  ],
  ['a name as long as it may be', { nodes: 100, name: 'a'.repeat(47) }],
])('manifests hold what Kubernetes demands: %s', (_, change) => {
  const job = { ...JOB, ...change };
  expect(job.name.length).toBeLessThanOrEqual(Math.min(...Object.values(longest).map((of) => of(job.nodes))));
  expect(problemsOf([...companions(job), jobSet(job)])).toEqual([]);
  expect(problemsOf([...companions(job), pyTorchJob(job)])).toEqual([]);
  // The checks can fail.
  expect(problemsOf([jobSet({ ...JOB, name: 'A' })])).toContain('JobSet: name');
  expect(problemsOf([jobSet({ ...JOB, nodes: 100, name: 'a'.repeat(48) })])).toContain('names of pods');
});

test('each node has a launcher that knows its place', () => {
  const argsOf = (template: unknown): string[] => (template as Template).spec.containers[0]?.args ?? [];
  const set = argsOf(jobSet(JOB).spec.replicatedJobs[0]?.template.spec.template);
  const [words, place] = [set.slice(0, -8), set.slice(-8)];
  expect(words).toEqual(['pretrain', 'qwen3-4b', '--tp-size', '8', 'a.b=$$(HOME)']);
  const nodes = ['--nproc', '8', '--nnodes', '4', '--node-rank'];
  expect(place).toEqual([...nodes, '$(JOB_COMPLETION_INDEX)', '--rdzv-endpoint', 'qwen3-4b-node-0-0.qwen3-4b:29500']);
  const { Master: master, Worker: worker } = pyTorchJob(JOB).spec.pytorchReplicaSpecs;
  const endpoint = '$(PET_MASTER_ADDR):$(PET_MASTER_PORT)';
  expect(argsOf(master.template).slice(-8)).toEqual([...nodes, '$(PET_NODE_RANK)', '--rdzv-endpoint', endpoint]);
  expect(worker?.replicas).toBe(3);
  expect(argsOf(jobSet({ ...JOB, nodes: 1 }).spec.replicatedJobs[0]?.template.spec.template).slice(-2)).toEqual([
    '--nproc',
    '8',
  ]);
});

test.each(['jobset', 'pytorchjob'])(
  'mbridge launch k8s --kind %s writes a job that its node can plan',
  async (kind) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'my.yaml'), 'train:\n  train_iters: 3\n');
    const options = ['--kind', kind, '--image', 'm:1', '--nproc-per-node', '2', '--pvc', 'data:/data'];
    const words = ['pretrain', '--config', 'my.yaml', 'qwen3-tiny', '--tp-size', '2'];
    const args = ['launch', 'k8s', ...options, '-o', 'job.yaml', '--', ...words];
    const { exitCode, stdout, stderr } = await mbridge(args, {}, folder);
    expect(exitCode, stderr).toBe(0);
    expect(stdout).toBe('kubectl apply -f job.yaml');
    expect(stderr).toMatch(/^2 ranks on the CPU: tp 2, cp 1, dp 1, pp 1; /);
    const text = readFileSync(join(folder, 'job.yaml'), 'utf8');
    const documents = parseAllDocuments(text).map((document) => document.toJS() as { kind: string; spec: never });
    expect(problemsOf(documents)).toEqual([]);
    const [map, job] = documents;
    const { data } = map as unknown as { data: Record<string, string> };
    expect(data).toEqual({ 'my.yaml': readFileSync(join(folder, 'my.yaml'), 'utf8') });
    const [template] =
      kind === 'jobset'
        ? templatesOfJobSet('qwen3-tiny', job?.spec as never, () => undefined)
        : templatesOfPyTorchJob('qwen3-tiny', job?.spec as never, () => undefined);
    const given = (template?.spec.containers[0]?.args ?? []).slice(1);
    expect(given).toContain('checkpoint.load=/data/runs/qwen3-tiny/checkpoints');
    const inPod = given.map((word) => word.replace('/etc/mbridge', folder));
    const plan = await mbridge(['plan', ...inPod, '--json'], {}, folder);
    expect(plan.exitCode, plan.stderr).toBe(0);
    expect(JSON.parse(plan.stdout)).toMatchObject({ device: 'cpu', layout: { world_size: 2, tp: 2 } });
  },
);

test('a manifest with a secret is for its owner alone, also where the file was there', async () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'job.yaml'), '', { mode: 0o644 });
  const options = ['--image', 'm:1', '--nodes', '2', '--gpus-per-node', '8', '-o', 'job.yaml'];
  const args = ['launch', 'k8s', ...options, '--', 'pretrain', 'qwen3-4b', '--tp-size', '8'];
  const { exitCode, stderr } = await mbridge(args, {}, folder);
  expect(exitCode, stderr).toBe(0);
  expect(stderr).toContain('warning: no --pvc');
  expect(statSync(join(folder, 'job.yaml')).mode & 0o777).toBe(0o600);
  const documents = parseAllDocuments(readFileSync(join(folder, 'job.yaml'), 'utf8')).map(
    (each) => each.toJS() as never,
  );
  expect(problemsOf(documents)).toEqual([]);
  const { stringData } = documents[0] as unknown as { stringData: { token: string } };
  expect(stringData.token).toMatch(/^[0-9a-f]{32}$/);
});
