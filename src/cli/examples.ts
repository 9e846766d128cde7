type Example = readonly [command: string, about: string];

/** Examples of commands whose help has nothing else to say behind its options; the others bring theirs. */
const EXAMPLES: Readonly<Record<string, readonly Example[]>> = {
  'runs list': [
    ['mbridge runs', 'the runs of runs/, the newest last'],
    ['mbridge runs list ../other/runs --last 5', 'the newest five of another folder'],
    ['mbridge runs --json', 'one JSON object a run'],
  ],
  'runs compare': [
    ['mbridge runs compare 20261128-120000-qwen3-tiny 20261128-130000-qwen3-tiny', 'by their names in runs/'],
    ['mbridge runs compare my-run ../other/run --json', 'by their folders'],
  ],
  launch: [
    ['mbridge launch slurm --nodes 2 --gpus-per-node 8 -- pretrain qwen3-4b --tp-size 2', 'an sbatch script'],
    ['mbridge launch k8s --nodes 2 --gpus-per-node 8 --image my/image -- pretrain qwen3-4b', 'a manifest'],
  ],
  recipes: [
    ['mbridge recipes', 'their names, and what each is'],
    ['mbridge pretrain qwen3-tiny', 'trains one; Qwen/Qwen3-4B and qwen3_4b name recipes too'],
  ],
  plan: [
    ['mbridge plan qwen3-4b --nproc 8 --tp-size 2 --pp-size 2 --device cuda', 'before there is a GPU'],
    ['mbridge plan my.yaml --nproc 8 --per-rank', 'of a file, a line a rank'],
    ['mbridge plan examples/jobs/grpo-qwen3-4b.yaml --nproc 8', 'of several models that take turns'],
    ['mbridge plan qwen3-tiny --json', 'for a program'],
  ],
  grid: [
    ['mbridge grid --nproc 8 --tp-size 2 --pp-size 2', 'which ranks talk to each other'],
    ['mbridge grid --nproc 4 --tp-size 2 --rank-offset 4 --world-size 16', 'of a part of the ranks'],
  ],
  'show-config': [
    ['mbridge show-config qwen3-tiny', 'all that is set, as YAML that can be run'],
    ['mbridge show-config my.yaml --tp-size 2 --explain', 'and where each value comes from'],
    ['mbridge show-config qwen3-tiny train.train_iters=20 --json', 'for a program'],
  ],
  config: [
    ['mbridge config keys', 'every section with its keys'],
    ['mbridge config keys optimizer', 'what each key of a section takes'],
  ],
  doctor: [
    ['mbridge doctor', 'what is here, and what to do about what is missing'],
    ['mbridge doctor --json', 'for a program; exit code 4 where nothing can run'],
  ],
  bench: [
    ['mbridge bench bound qwen3-4b', 'what no run of it can beat here'],
    ['mbridge bench step qwen3-4b --nproc 8 --profile', 'how near a run comes, and where its time goes'],
  ],
  'bench gemm': [['mbridge bench gemm qwen3-4b --tp-size 2', 'at the sizes of a tensor-parallel rank']],
  'bench attention': [['mbridge bench attention qwen3-4b model.seq_length=8192', 'of longer sequences']],
  'bench ops': [['mbridge bench ops qwen3-tiny --device cpu', 'on the CPU']],
  'bench bound': [['mbridge bench bound qwen3-4b --tp-size 2 --json', 'for a program']],
  'bench comm': [['mbridge bench comm --nproc 2 --largest 1048576', 'of two processes, up to 1 MiB']],
  'bench step': [
    ['mbridge bench step qwen3-tiny --nproc 2 --tp-size 2 --steps 10', 'ten steps after five'],
    ['mbridge bench step qwen3-4b --nproc 8 --profile --record steps.ndjson', 'call by call, kept in a file'],
  ],
  'bench generate': [['mbridge bench generate qwen3-tiny --rows 8 --tokens 32', 'eight rows at once']],
  'bench park': [['mbridge bench park qwen3-tiny --nproc 2 --tp-size 2 --steps 4', 'two updates before, two after']],
  'bench logprobs': [['mbridge bench logprobs qwen3-tiny --rows 8 --tokens 1000', 'of some thousand tokens']],
  'bench check': [
    ['mbridge bench check', 'everything that this machine can check'],
    ['mbridge bench check --parts fixtures,bits --device cpu', 'some of it, on the CPU'],
  ],
  data: [
    ['mbridge data prepare --input corpus --tokenizer Qwen3-0.6B --output tokens', 'texts to tokens.bin and .idx'],
    ['mbridge data inspect tokens --tokenizer Qwen3-0.6B', 'what they hold'],
  ],
  'data prepare': [
    ['mbridge data prepare --input a.jsonl b.txt.gz --tokenizer Qwen3-0.6B --output tokens', 'of single files'],
    ['mbridge data prepare --input "corpus/**" --tokenizer byte --output bytes', 'of a pattern, byte by byte'],
    ['mbridge data prepare --input chats.jsonl --chat --tokenizer Qwen3-0.6B --output chats', 'of conversations'],
  ],
  'data import-hf': [
    ['mbridge data import-hf my-dataset --tokenizer Qwen3-0.6B --output tokens --split train', 'one of its splits'],
  ],
  'data inspect': [['mbridge data inspect tokens --tokenizer Qwen3-0.6B --samples 5', 'with five beginnings as text']],
  'data verify': [['mbridge data verify tokens', 'every token is read']],
  'data merge': [['mbridge data merge first second --output both', 'in this order']],
  checkpoint: [
    ['mbridge checkpoint inspect runs/20261128-120000-qwen3-tiny/checkpoints', 'which there are'],
    ['mbridge checkpoint export my-saves my-model', 'as a Hugging Face folder'],
  ],
  'checkpoint inspect': [
    ['mbridge checkpoint inspect my-saves', 'which checkpoints a folder has'],
    ['mbridge checkpoint inspect my-saves/step-00000100 --tensors', 'what one holds'],
  ],
  'checkpoint verify': [['mbridge checkpoint verify my-saves', 'the one that latest names, byte by byte']],
  'checkpoint reshard': [
    ['mbridge checkpoint reshard my-saves other-saves --tp-size 2', 'as two ranks would write it'],
  ],
  'checkpoint prune': [['mbridge checkpoint prune my-saves --keep-last 2 --dry-run', 'what would go']],
  'checkpoint import': [['mbridge checkpoint import Qwen3-0.6B my-saves', 'for checkpoint.pretrained_checkpoint']],
  'checkpoint export': [
    ['mbridge checkpoint export my-saves my-model --hf-path Qwen3-0.6B', 'with the tokenizer of another folder'],
    ['mbridge checkpoint export my-saves my-adapter --adapter', 'the adapters alone'],
  ],
  'setup-cuda': [
    ['mbridge setup-cuda', 'all that is missing'],
    ['mbridge setup-cuda --index-url https://pypi.example.org/simple', "with pip's own options"],
    ['mbridge setup-cuda --into /opt/cuda-libraries', 'the libraries, where they are wanted'],
  ],
  build: [['mbridge build', 'what runs take from then on']],
};

/** The examples of a command by its words, for its help; empty where it has its own. */
export function examplesText(command: string): string {
  const examples = Object.hasOwn(EXAMPLES, command) ? (EXAMPLES[command] ?? []) : [];
  if (examples.length === 0) return '';
  const widest = examples.reduce((most, [line]) => Math.max(most, line.length), 0);
  // Beside the command where both fit a terminal.
  const lines = examples.map(([line, about]) =>
    widest + about.length <= 114 ? `  ${line.padEnd(widest)}   ${about}` : `  ${line}   ${about}`,
  );
  return ['', 'Examples:', ...lines].join('\n');
}
