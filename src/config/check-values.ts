import { frozenProblem } from '../families/frozen.js';
import { modelShape } from '../families/model-shape.js';
import { checkFp8 } from './fp8.js';
import type { Problem } from './problem.js';
import type { RunConfig } from './schema.js';
import { validationSets, type EvaluationSource } from './validation-sets.js';

/** Rules between keys that hold whatever the number of processes. */
export function checkValues(cfg: RunConfig, placeOf: (path: string) => string | undefined): Problem[] {
  const problems: Problem[] = [];
  const bad = (path: string, message: string): void => {
    problems.push({ code: 'MB_CONFIG_VALUE', place: placeOf(path), path, message });
  };
  const { model, optimizer, scheduler, ddp } = cfg;

  if (scheduler.lr_decay_style !== 'constant' && scheduler.lr_warmup_iters >= scheduler.lr_decay_iters) {
    const found = `${scheduler.lr_warmup_iters} updates of warm-up do not end before scheduler.lr_decay_iters ${scheduler.lr_decay_iters}`;
    bad(
      'scheduler.lr_warmup_iters',
      `${found}; lower it (0 is allowed) or raise lr_decay_iters (default: train_iters)`,
    );
  }
  if (optimizer.min_lr > optimizer.lr) {
    bad('optimizer.min_lr', `${optimizer.min_lr} is above optimizer.lr ${optimizer.lr}; set both`);
  }
  const wsd = scheduler.lr_wsd_decay_iters;
  if (scheduler.lr_decay_style === 'WSD') {
    const room = scheduler.lr_decay_iters - scheduler.lr_warmup_iters;
    if (wsd === null) bad('scheduler.lr_wsd_decay_iters', 'missing; WSD needs the length of its final decay');
    else if (wsd > room)
      bad('scheduler.lr_wsd_decay_iters', `${wsd} updates do not fit between warm-up and decay end (${room})`);
  } else if (wsd !== null) {
    bad('scheduler.lr_wsd_decay_iters', `is for lr_decay_style WSD, not ${scheduler.lr_decay_style}; leave it unset`);
  }
  if (optimizer.use_distributed_optimizer !== (ddp.data_parallel_sharding_strategy !== 'no_shard')) {
    const found = `${ddp.data_parallel_sharding_strategy} contradicts optimizer.use_distributed_optimizer`;
    bad('ddp.data_parallel_sharding_strategy', `${found} ${optimizer.use_distributed_optimizer}; change one of them`);
  }
  if (model.num_attention_heads % model.num_key_value_heads !== 0) {
    const found = `${model.num_key_value_heads} does not divide model.num_attention_heads ${model.num_attention_heads}`;
    bad('model.num_key_value_heads', found);
  }
  const grows = model.rope_scaling?.rope_type === 'dynamic';
  if (model.seq_length > model.max_position_embeddings && !grows) {
    const found = `${model.seq_length} is above model.max_position_embeddings ${model.max_position_embeddings}`;
    bad('model.seq_length', `${found}; raise that if the model is meant for longer sequences`);
  }
  if (model.pad_token_id !== null && model.pad_token_id >= model.vocab_size) {
    bad('model.pad_token_id', `${model.pad_token_id} is not in the vocabulary of model.vocab_size ${model.vocab_size}`);
  }
  const { trace_steps: traced } = cfg.logger;
  if (traced !== null && (traced.length !== 2 || traced[0]! > traced[1]!)) {
    bad('logger.trace_steps', `[${traced.join(', ')}] is not the first and the last update to trace, such as [10, 12]`);
  }
  const { recompute_modules: modules } = model;
  if (new Set(modules).size < modules.length) bad('model.recompute_modules', 'names a module twice');
  else if (model.recompute_granularity !== 'selective' && modules.join() !== 'norm,rope,swiglu') {
    const found = `is for recompute_granularity selective, not ${model.recompute_granularity}`;
    bad('model.recompute_modules', `${found}; set that, or leave it unset`);
  }
  checkFp8(cfg, bad);
  checkFrozen(cfg, bad);
  checkDataset(cfg, bad);
  const { checkpoint } = cfg;
  // Where nothing is said, commands that train save in the run's folder.
  const saysNot = checkpoint.save === null && placeOf('checkpoint.save') !== undefined;
  for (const key of ['save_interval', 'keep_last', 'keep_every'] as const) {
    if (checkpoint[key] !== null && saysNot) {
      bad(`checkpoint.${key}`, 'nothing is saved; set checkpoint.save to a folder, or leave it unset');
    }
  }
  if (checkpoint.keep_every !== null && checkpoint.keep_last === null) {
    bad('checkpoint.keep_every', 'all checkpoints are kept; set checkpoint.keep_last, or leave it unset');
  }
  checkValidation(cfg, bad);
  return problems;
}

function checkFrozen(cfg: RunConfig, bad: (path: string, message: string) => void): void {
  const { frozen_parameters: patterns } = cfg.optimizer;
  if (patterns.length > 0 && cfg.peft.type !== 'none') {
    return bad('optimizer.frozen_parameters', 'all but the adapters is frozen beside section peft; leave it unset');
  }
  const problem = patterns.length === 0 ? null : frozenProblem(modelShape(cfg), patterns);
  if (problem !== null) bad('optimizer.frozen_parameters', problem);
}

function checkValidation(cfg: RunConfig, bad: (path: string, message: string) => void): void {
  const { eval_interval: interval, eval_iters: iters, eval_samples: samples, eval_at_start: atStart } = cfg.validation;
  const sets = Object.entries(validationSets(cfg));
  if (interval !== null && sets.length === 0) {
    const remedy = 'name one, such as validation.sets={valid: {type: text, path: valid.txt}}, or leave it unset';
    bad('validation.eval_interval', `there is no validation set; ${remedy}`);
  }
  if (atStart && interval === null) {
    bad('validation.eval_at_start', 'nothing is evaluated; set validation.eval_interval, or leave it unset');
  }
  if (iters !== null && samples !== null) {
    bad('validation.eval_samples', `is set beside validation.eval_iters ${iters}; set one of them`);
  }
  const ends = ({ dataset }: EvaluationSource): boolean =>
    dataset.type !== 'mock' && (dataset.type !== 'indexed' || dataset.blend === null);
  const endless =
    interval !== null && iters === null && samples === null ? sets.filter(([, source]) => !ends(source)) : [];
  for (const [name] of endless) {
    bad('validation.sets', `${name} has no end; set validation.eval_iters or validation.eval_samples`);
  }
}

function checkDataset(cfg: RunConfig, bad: (path: string, message: string) => void): void {
  const { dataset, tokenizer, validation } = cfg;
  const template = 'conversations take a chat template; set tokenizer.type=huggingface and tokenizer.path';
  if (tokenizer.type === 'byte') {
    if (dataset.type === 'chat') bad('dataset.type', template);
    for (const [name, set] of Object.entries(validation.sets)) {
      if (set.type === 'chat') bad('validation.sets', `${name}: ${template}`);
    }
  }
  if (dataset.type !== 'indexed') return;
  const { path, blend, split } = dataset;
  if (path === null && blend === null)
    bad('dataset.path', 'missing; name a pair by its path without .bin and .idx, or set dataset.blend');
  if (path !== null && blend !== null) bad('dataset.blend', `is set beside dataset.path ${path}; set one of them`);
  const parts = split.split(',').map((part) => (part.trim() === '' ? NaN : Number(part)));
  const areParts = parts.length <= 3 && parts.every((part) => part >= 0 && part < Infinity);
  if (!areParts || !parts.some((part) => part > 0)) {
    bad(
      'dataset.split',
      `expected parts for training, validation and test such as 969,30,1, got ${JSON.stringify(split)}`,
    );
  }
}
