import { describe, expect, test } from 'vitest';
import { qwen34bPretrainConfig, qwen3TinyPretrainConfig } from '../../recipes/qwen3.js';
import { MbridgeError } from '../../src/base/errors.js';
import { planRun } from '../../src/train/plan.js';
import { planJob, type Job, type JobModel } from '../../src/train/plan-job.js';

const config = (tp: number, pp: number) =>
  qwen34bPretrainConfig({ tensor_model_parallel_size: tp, pipeline_model_parallel_size: pp });
const POLICY: JobModel = { name: 'policy', config: config(2, 2) };
const SAMPLER: JobModel = {
  ...{ name: 'sampler', config: config(1, 1), generation: { slots: 8, context: 512 }, onlyGenerates: true },
};
const REFERENCE: JobModel = { name: 'reference', config: config(1, 2), rankOffset: 2, ranks: 2, trainable: false };
const JOB: Job = {
  ...{ worldSize: 4, device: 'cuda', models: [POLICY, SAMPLER, REFERENCE] },
  phases: [
    { name: 'sample', resident: ['sampler', 'reference'] },
    { name: 'learn', resident: ['policy', 'reference'] },
  ],
};

describe('the plan of a job', () => {
  const plan = planJob(JOB);
  const [policy, sampler, reference] = [
    planRun(POLICY.config, 4, 'cuda'),
    planRun(SAMPLER.config, 4, 'cuda', SAMPLER),
    planRun(REFERENCE.config, 2, 'cuda', REFERENCE),
  ];
  const held = (run: typeof policy, rank: number): number => run.ranks[rank]?.totalBytes ?? 0;

  test('has in each phase what is resident there, and the largest of it', () => {
    for (const { rank, phaseBytes, peakBytes, peakPhase, runtimeBytes } of plan.ranks) {
      const frozen = held(reference, rank - 2);
      expect(phaseBytes).toEqual([
        runtimeBytes + held(sampler, rank) + frozen,
        runtimeBytes + held(policy, rank) + frozen,
      ]);
      expect(peakBytes).toBe(Math.max(...phaseBytes));
      expect(peakPhase).toBe('learn');
    }
    expect(plan.neededBytes).toBe(plan.ranks[2]!.peakBytes);
  });

  test('has host memory for the state of what is parked, and for no other', () => {
    expect(plan.models.map(({ name, parks, trained }) => ({ name, parks, trained }))).toEqual([
      { name: 'policy', parks: true, trained: true },
      { name: 'sampler', parks: true, trained: false },
      { name: 'reference', parks: false, trained: false },
    ]);
    const { parameters, optimizer } = policy.ranks[0]!.bytes;
    expect(plan.models[0]!.ranks[0]!.stateBytes).toBe(parameters + optimizer);
    expect(plan.ranks[0]!.hostBytes).toBe(parameters + optimizer + sampler.ranks[0]!.bytes.parameters);
    // What generates has no gradients, and memory for no more than its tokens.
    expect(sampler.ranks[0]!.bytes).toMatchObject({ gradients: 0, optimizer: 0, activations: 0 });
    expect(sampler.ranks[0]!.bytes.cache).toBeGreaterThan(0);
    expect(planJob({ worldSize: 4, device: 'cuda', models: [POLICY] }).ranks[0]!.hostBytes).toBe(0);
  });

  test('allows for libraries once, and for the communicators of every model', () => {
    const [own, others] = [policy.ranks[0]!.runtimeBytes, sampler.ranks[0]!.runtimeBytes];
    expect(plan.ranks[0]!.runtimeBytes).toBe(own + others - 640e6);
    expect(plan.ranks[2]!.runtimeBytes).toBe(own + others + reference.ranks[0]!.runtimeBytes - 2 * 640e6);
  });

  test('fits a GPU, or the memory of a machine with all of its processes', () => {
    const fits = (memoryBytes: number) => planJob({ ...JOB, memoryBytes }).fits;
    expect([plan.fits, fits(plan.neededBytes), fits(plan.neededBytes - 1)]).toEqual([null, true, false]);
    const tiny = { name: 'tiny', config: qwen3TinyPretrainConfig() };
    const { ranks, neededBytes } = planJob({ worldSize: 2, device: 'cpu', models: [tiny] });
    expect(neededBytes).toBe(ranks[0]!.peakBytes + ranks[1]!.peakBytes + 2 * 96 * 2 ** 20);
  });
});

const layout = (change: Partial<JobModel>): Partial<Job> => ({
  models: [{ ...POLICY, ...change }],
  phases: undefined!,
});
const phase = (...resident: string[]): Partial<Job> => ({ phases: [...JOB.phases!, { name: 'x', resident }] });
test.each<[Partial<Job>, string, RegExp]>([
  [{ worldSize: 0 }, 'MB_JOB', /^0 ranks: a job has 1 or more$/],
  [{ memoryBytes: NaN }, 'MB_JOB', /NaN bytes of memory/],
  [{ models: [] }, 'MB_JOB', /models: a job without models/],
  [{ models: [POLICY, SAMPLER, REFERENCE, POLICY] }, 'MB_JOB', /^models\.policy: two models of one name/],
  [{ phases: [] }, 'MB_JOB', /phases: no phases/],
  [{ phases: [...JOB.phases!, JOB.phases![0]!] }, 'MB_JOB', /^phases\.sample: two phases of one name/],
  [phase('polic'), 'MB_JOB', /^phases\.x: there is no model polic \(did you mean policy\?\); the job has policy, sam/],
  [phase('policy', 'policy'), 'MB_JOB', /^phases\.x: policy is named twice/],
  [{ phases: [JOB.phases![0]!] }, 'MB_JOB', /^models\.policy: it is resident in no phase/],
  [layout({ rankOffset: -1 }), 'MB_JOB', /^models\.policy: its first rank is -1/],
  [layout({ rankOffset: 4 }), 'MB_JOB', /^models\.policy: its first rank is 4, of a job of 4/],
  [layout({ ranks: 0 }), 'MB_JOB', /^models\.policy: it has 0 ranks/],
  [layout({ rankOffset: 2, ranks: 4 }), 'MB_JOB', /^models\.policy: it is on ranks 2 to 5, of a job of 4/],
  [layout({ generation: { slots: 0, context: 1 } }), 'MB_JOB', /^models\.policy: it generates 0 rows of 1 tokens/],
  [layout({ onlyGenerates: true }), 'MB_JOB', /^models\.policy: it only generates, and has no generation/],
  [
    layout({ ...SAMPLER, name: 'policy', trainable: true }),
    'MB_JOB',
    /^models\.policy: it only generates, and is train/,
  ],
  [layout({ head: 'value', generation: SAMPLER.generation! }), 'MB_JOB', /^models\.policy: a value model generates/],
  [layout({ rankOffset: 1 }), 'MB_CONFIG_LAYOUT', /^models\.policy: tp 2 x pp 2 = 4 does not divide the 3 processes/],
  [
    layout({ config: config(3, 1) }),
    'MB_CONFIG_LAYOUT',
    /models\.policy model\.tensor_model_parallel_size: 3 does not/,
  ],
])('%j is refused with %s', (change, code, text) => {
  let error: unknown;
  try {
    planJob({ ...JOB, ...change });
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(MbridgeError);
  expect(error).toMatchObject({ code, exitCode: 3 });
  expect((error as MbridgeError).message).toMatch(text);
});
