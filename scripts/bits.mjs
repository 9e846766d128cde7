/**
 * Proof that a change keeps every bit: trains the fixtures on many layouts and prints, a line a run, hashes of the losses
 * and norms of all steps and of the final weights. Run it in the checkout before and after a change and compare; hashes
 * hold for one machine only, since another's vector units may add in another order.
 *
 *   node scripts/bits.mjs > after.txt && diff before.txt after.txt
 *
 * `--checkout DIR` runs another built checkout's command line (or an unpacked bundle's), `--device cuda` GPUs, with a
 * training in bf16 beside the others; layouts of more than `--ranks` processes are left out, and `--fixture NAME` chooses.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';

const repository = join(import.meta.dirname, '..');
const { values } = parseArgs({
  options: {
    checkout: { type: 'string', default: repository },
    device: { type: 'string', default: 'cpu' },
    ranks: { type: 'string', default: '8' },
    fixture: { type: 'string', multiple: true, default: ['qwen3-tied', 'qwen3-untied', 'qwen3-masked'] },
  },
});
const checkout = resolve(values.checkout);

/** [tp, pp, dp, ...overrides] */
const LAYOUTS = [
  [1, 1, 1],
  [2, 1, 1],
  [2, 1, 1, 'model.sequence_parallel=false'],
  [1, 2, 1],
  [1, 4, 1],
  [1, 1, 2],
  [2, 2, 1],
  [2, 2, 2],
  [1, 2, 1, 'model.virtual_pipeline_model_parallel_size=2'],
  [1, 1, 2, 'ddp.data_parallel_sharding_strategy=optim_grads'],
  [2, 2, 1, 'model.recompute_granularity=full'],
];

/** Runs a program of the checkout and gives what it printed. */
async function run(...args) {
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: checkout, maxBuffer: 1 << 26 });
  return stdout;
}

async function hashFiles(folder, endsWith) {
  const hash = createHash('sha256');
  for (const file of readdirSync(folder).sort()) {
    if (file.endsWith(endsWith)) for await (const bytes of createReadStream(join(folder, file))) hash.update(bytes);
  }
  return hash.digest('hex').slice(0, 16);
}

const hashText = (text) => createHash('sha256').update(text).digest('hex').slice(0, 16);

const folderOf = (name) => join(repository, 'fixtures', name);

function config(fixture) {
  const folder = folderOf(fixture);
  const { optimizer: o, steps, batch, seq } = JSON.parse(readFileSync(join(folder, 'trajectory.json'), 'utf8'));
  return {
    model: { hf_path: folder, seq_length: seq },
    train: { train_iters: steps.length, global_batch_size: batch, micro_batch_size: 1 },
    optimizer: {
      lr: o.lr,
      min_lr: o.min_lr,
      weight_decay: o.weight_decay,
      adam_beta1: o.beta1,
      adam_beta2: o.beta2,
      adam_eps: o.eps,
      clip_grad: o.clip_grad_norm,
    },
    scheduler: { lr_decay_style: 'cosine', lr_warmup_iters: o.warmup_steps, lr_decay_iters: o.decay_steps },
    mixed_precision: 'fp32',
    checkpoint: { pretrained_checkpoint: folder },
    dataset: { type: 'jsonl', path: join(folder, 'tokens.jsonl'), shuffle: false },
  };
}

const work = mkdtempSync(join(tmpdir(), 'mbridge-bits-'));
try {
  const layouts = LAYOUTS.filter(([tp, pp, dp]) => tp * pp * dp <= Number(values.ranks));
  if (values.device === 'cuda') layouts.push(...layouts.map((layout) => [...layout, 'mixed_precision=bf16_mixed']));
  for (const fixture of values.fixture) {
    // YAML reads JSON.
    writeFileSync(join(work, 'run.yaml'), JSON.stringify(config(fixture)));
    for (const [tp, pp, dp, ...set] of layouts) {
      const saves = join(work, 'saves');
      const out = await run(
        ...['bin/mbridge.js', 'pretrain', '--config', join(work, 'run.yaml'), '--log-dir', join(work, 'log')],
        ...['--nproc', tp * pp * dp, '--tp-size', tp, '--pp-size', pp, '--device', values.device, '--json'].map(String),
        ...[`checkpoint.save=${saves}`, ...set],
      );
      const steps = out
        .split('\n')
        .filter((line) => line.includes('"type":"step"'))
        .map((line) => JSON.parse(line))
        .map(({ step, loss, grad_norm, lr }) => [step, loss, grad_norm, lr]);
      const reference = JSON.parse(readFileSync(join(folderOf(fixture), 'trajectory.json'), 'utf8')).steps;
      const distances = steps.map(([, loss], i) => Math.abs(loss / reference[i].loss - 1));
      console.error(`loss at most ${Math.max(...distances).toExponential(1)} from torch's`);
      await run('bin/mbridge.js', 'checkpoint', 'export', saves, join(work, 'hf'), '--dtype', 'fp32');
      const weights = await hashFiles(join(work, 'hf'), '.safetensors');
      console.log(
        `${fixture} tp${tp} pp${pp} dp${dp} ${set}: ${steps.length} steps ${hashText(JSON.stringify(steps))} weights ${weights}`,
      );
      for (const name of ['saves', 'hf', 'log']) rmSync(join(work, name), { recursive: true, force: true });
    }
  }
  if (values.device === 'cpu') {
    const example = join(checkout, 'dist/examples/policy/ppo.js');
    const layouts = ['--tp-size', '2', '--value-pp-size', '2'];
    const out = await run(example, '--nproc', '4', ...layouts, '--train-iters', '4');
    const rollouts = out.split('\n').filter((line) => line.startsWith('rollout'));
    console.log(`three models: ${hashText(rollouts.join('\n'))}\n${rollouts.join('\n')}`);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
