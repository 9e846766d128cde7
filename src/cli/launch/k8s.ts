import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, isAbsolute, join } from 'node:path/posix';
import { InvalidArgumentError, type Command } from 'commander';
import { shellWord } from '../../base/shell-word.js';
import { parseCount, parseRestarts } from '../shared/run-options.js';
import { checkCommand, describeRun, usage, type ClusterRun, type Machines } from './cluster-run.js';
import { collect, parseLine, tellJob } from './job-file.js';
import { jobSet, longestJobSetName } from './job-set.js';
import { companions, CONFIG_FOLDER, type Claim, type K8sJob } from './k8s-pod.js';
import { longestPyTorchJobName, pyTorchJob } from './pytorch-job.js';

const EXAMPLES = `
Examples:
  mbridge launch k8s --image registry/mbridge:0.1 --nodes 2 --gpus-per-node 8 --pvc data:/data -- pretrain qwen3-4b --tp-size 8
  mbridge launch k8s --image registry/mbridge:0.1 --gpus-per-node 8 -o job.yaml -- pretrain my.yaml
  mbridge launch k8s --kind pytorchjob --image registry/mbridge:0.1 --nodes 2 --gpus-per-node 8 -- pretrain qwen3-4b

The command after -- is resolved and planned first. A configuration file that it names goes along as a ConfigMap. What the
pods must keep lies in the folder of the first --pvc: the run's folder, with its checkpoints, from which each start goes on.
docs/several-nodes.md says more.`;

/** What commander parses. */
interface K8sFlags {
  readonly kind: 'jobset' | 'pytorchjob';
  readonly image: string;
  readonly name?: string;
  readonly namespace?: string;
  readonly nodes: number;
  readonly gpusPerNode?: number;
  readonly nprocPerNode?: number;
  readonly pvc: readonly Claim[];
  readonly shmSize: string;
  readonly cpus?: string;
  readonly memory?: string;
  readonly grace: number;
  readonly maxRestarts: number;
  readonly tokenSecret?: string;
  readonly json?: boolean;
  readonly file?: string;
}

/** `mbridge launch k8s`: writes a manifest. */
export function addK8s(parent: Command): void {
  parent
    .command('k8s')
    .usage('--image <image> [options] -- pretrain <recipe|file.yaml> [section.key=value ...] [options]')
    .description('write a manifest that trains on nodes of a Kubernetes cluster: a JobSet or a PyTorchJob')
    .argument('<command...>', 'after --: the command, as it would be given here')
    .requiredOption('--image <image>', 'image in which mbridge is a command', parseLine)
    .option('--kind <kind>', 'jobset or pytorchjob (Kubeflow)', parseKind, 'jobset')
    .option('--name <name>', "of the job; default: the recipe's or file's", parseLabel)
    .option('--namespace <name>', 'default: that of kubectl', parseLabel)
    .option('--nodes <n>', 'nodes, a pod each', parseCount, 1)
    .option('--gpus-per-node <n>', 'GPUs of each node, a rank for each', parseCount)
    .option('--nproc-per-node <n>', 'ranks of the node, for a run on the CPU', parseCount)
    .option(
      '--pvc <claim:path>',
      'claim of storage, and its folder in the pods; may be repeated',
      collect(parseClaim),
      [],
    )
    .option('--shm-size <quantity>', 'size of /dev/shm', parseQuantity, '16Gi')
    .option('--cpus <quantity>', 'cores that are asked for', parseQuantity)
    .option('--memory <quantity>', 'memory that is asked for, and the limit; /dev/shm counts', parseQuantity)
    .option('--grace <seconds>', 'for the save of a pod that has to go', parseCount, 600)
    .option('--max-restarts <n>', 'of a run that crashed or hung', parseRestarts, 3)
    .option('--token-secret <name>', 'Secret that has a key token; default: one is made', parseLabel)
    .option('-o, --file <file>', 'file for the manifest, for you alone; default: stdout')
    .option('--json', 'as JSON')
    .addHelpText('after', EXAMPLES)
    .action(async (words: string[], flags: K8sFlags) => {
      await launchK8s(words, flags);
    });
}

async function launchK8s(words: readonly string[], flags: K8sFlags): Promise<void> {
  const { nodes, gpusPerNode, kind, maxRestarts, pvc: claims, image, namespace, shmSize, cpus, memory } = flags;
  const machines: Machines = { nodes, gpus: gpusPerNode, cpuRanks: flags.nprocPerNode, cpuFlag: '--nproc-per-node' };
  const run = await checkCommand(words, machines, maxRestarts > 0);
  const name = flags.name ?? labelOf(run.name);
  const longest = kind === 'jobset' ? longestJobSetName(nodes) : longestPyTorchJobName(nodes);
  if (name.length > longest) {
    throw usage(
      `the name ${name} has ${name.length} letters, and those of its pods would be too long`,
      `give one of at most ${longest}: --name`,
    );
  }
  const root = claims[0]?.path;
  const runDir = run.logDir ?? (root === undefined ? null : join(root, 'runs', name));
  const job: K8sJob = {
    ...{ name, namespace, nodes, gpus: gpusPerNode, nproc: run.ranksPerNode, image },
    words: wordsOf(words, run, runDir),
    config: run.file === undefined ? undefined : { name: basename(run.file), text: readFileSync(run.file, 'utf8') },
    ...{ claims, shmSize, cpus, memory, graceS: flags.grace, maxRestarts },
    token: flags.tokenSecret === undefined ? { value: randomBytes(16).toString('hex') } : { secret: flags.tokenSecret },
  };
  const { stringify } = await import('yaml');
  const documents = [...companions(job), kind === 'jobset' ? jobSet(job) : pyTorchJob(job)];
  // A node of YAML that is there twice would become an alias, which some readers refuse.
  const text = documents.map((each) => stringify(each, { aliasDuplicateObjects: false, lineWidth: 0 })).join('---\n');
  process.stderr.write(`${describeRun(run, machines)}\n`);
  if (runDir === null) {
    process.stderr.write('warning: no --pvc: what the run logs and saves goes with its pods\n');
  }
  const { file } = flags;
  const kindOfFile = documents.some((each) => each.kind === 'Secret') ? 'secret' : 'text';
  const start = file === undefined ? null : `kubectl apply -f ${shellWord(file)}`;
  tellJob({ text, file, kind: kindOfFile }, start, flags.json);
}

/** The command as the pods get it: the file where they have it, and a folder that outlives them. */
function wordsOf(given: readonly string[], run: ClusterRun, runDir: string | null): string[] {
  const { file, saves, logDir } = run;
  const inPod = (word: string): string => {
    if (file === undefined) return word;
    const path = `${CONFIG_FOLDER}/${basename(file)}`;
    return word === file ? path : word === `--config=${file}` ? `--config=${path}` : word;
  };
  const folder = saves.folder === undefined && runDir !== null ? join(runDir, 'checkpoints') : saves.folder;
  return [
    ...given.map(inPod),
    ...run.words.slice(given.length),
    ...(logDir === null && runDir !== null ? ['--log-dir', runDir] : []),
    ...(saves.folder === undefined && typeof folder === 'string' ? [`checkpoint.save=${folder}`, ...saves.words] : []),
    ...(typeof folder !== 'string' || saves.loads ? [] : [`checkpoint.load=${folder}`]),
  ];
}

/** A recipe's or a file's name as a DNS label. */
function labelOf(name: string): string {
  const label = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+/, '')
    .replace(/-$/, '');
  return label === '' ? 'mbridge' : label;
}

/** RFC 1035: what names of services take, and so those of all else. */
function parseLabel(text: string): string {
  if (/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/.test(text)) return text;
  throw new InvalidArgumentError('Expected lower-case letters, digits and -, a letter first, at most 63.');
}

function parseKind(text: string): string {
  if (text === 'jobset' || text === 'pytorchjob') return text;
  throw new InvalidArgumentError('Expected jobset or pytorchjob.');
}

function parseClaim(text: string): Claim {
  const [claim = '', path = '', ...more] = text.split(':');
  if (more.length === 0 && /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(claim) && isAbsolute(path)) return { claim, path };
  throw new InvalidArgumentError('Expected the name of a claim and a folder, as in data:/data.');
}

function parseQuantity(text: string): string {
  if (/^\d+(\.\d+)?(m|k|[KMGTP]i?|)$/.test(text)) return text;
  throw new InvalidArgumentError('Expected a quantity of Kubernetes, as in 16Gi, 8 or 500m.');
}
