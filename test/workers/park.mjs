// A worker that trains a model without disturbance, and then one that is parked between updates while others have its memory.
import { HostImage } from '../../dist/src/checkpoint/files/host-image.js';
import { planShards, StateSnapshot } from '../../dist/src/checkpoint/run/state-snapshot.js';
import {
  generate,
  provideDistributedModel,
  setupGroups,
  setupOptimizer,
  setupRunData,
  WeightTransfer,
} from '../../dist/src/index.js';
import { openRuntime } from './set-up.mjs';

const UPDATES = 3;
const PROMPTS = [[1, 2, 3], [4], [5, 6]];

export async function runWorker(context) {
  const { config, rank, worldSize, store, options } = context;
  const { device, runtime } = openRuntime(context);
  const world = await runtime.createGroups('world', [[...Array(worldSize).keys()]]);
  const { generation } = options;

  const build = async (cfg) => {
    const { pgCollection } = await setupGroups(cfg, { runtime, worldSize });
    const model = await provideDistributedModel(cfg, { pgCollection, device, generation });
    const { optimizer } = setupOptimizer(cfg, model, { pgCollection });
    return { cfg, model, optimizer, pgCollection, data: await setupRunData(cfg, pgCollection), losses: [], step: 0 };
  };
  const backward = (trained) => {
    const { model, data, optimizer, losses } = trained;
    model.forwardBackward(data.next(++trained.step), { hooks: optimizer.hooks });
    losses.push(model.readLoss());
  };
  const update = (trained) => {
    backward(trained);
    trained.optimizer.step();
  };
  /** What is left of a run: losses, tokens that it generates, scores, weights and moments. */
  const remains = async ({ model, losses, data, step, optimizer }) => {
    const rows = await generate(model, PROMPTS, { maxTokens: 6, seed: 7 });
    const scores = model.score(data.next(step + 1));
    const moments = optimizer.state.buckets.flatMap(({ m, v, main }) =>
      [m, v, main].map((tensor) => {
        const values = new Float32Array(tensor.size);
        device.read(tensor, values);
        return values;
      }),
    );
    const weights = model.parameters().map(({ name, values }) => [name, values]);
    const parts = [losses, rows, scores, weights, moments];
    const plain = (_, value) => (ArrayBuffer.isView(value) ? Buffer.from(value.buffer).toString('base64') : value);
    return parts.map((part) => JSON.stringify(part, plain));
  };
  const end = ({ model, data }) => {
    data.close();
    model.dispose();
  };
  const codeOf = async (call) => {
    try {
      await call();
    } catch (error) {
      return error.code ?? String(error);
    }
    return 'nothing';
  };
  const resident = () => process.memoryUsage().rss;

  for (const [i, layout] of options.layouts.entries()) {
    const cfg = {
      ...config,
      model: { ...config.model, ...layout.model },
      ddp: { ...config.ddp, ...layout.ddp },
    };
    const undisturbed = await build(cfg);
    for (let step = 0; step < 2 * UPDATES; step++) update(undisturbed);
    const wanted = await remains(undisturbed);
    end(undisturbed);

    const parked = await build(cfg);
    const { model, optimizer, data, pgCollection } = parked;
    const { plan } = model.stage;
    for (let step = 1; step < UPDATES; step++) update(parked);
    backward(parked);
    const codes = { 'park before the update of a backward': await codeOf(() => model.park()) };
    optimizer.step();
    const snapshot = new StateSnapshot(
      device,
      optimizer.state,
      planShards(optimizer.state, { tp: pgCollection.tp, rank }),
      ({ bytes }) => HostImage.shared(bytes),
    );
    const fell = [];
    const groups = [];
    const park = () => {
      const before = resident();
      groups.push(device.binding.handles().comms);
      model.park();
      fell.push(before - resident());
    };
    const unpark = () => {
      model.unpark();
      groups.push(device.binding.handles().comms);
    };
    park();
    codes['unpark of a model that is there'] = await codeOf(() => undisturbed.model.unpark());

    const other = await build({ ...cfg, rng: { ...cfg.rng, seed: 99 } });
    update(other);
    const frozen = await provideDistributedModel(cfg, { pgCollection, device, trainable: false });
    const common = { group: world, store };
    const transfers = {
      'transfer from it': await WeightTransfer.create({ ...common, name: `${i}/0`, source: model, target: frozen }),
    };
    frozen.park();
    transfers['transfer to it'] = await WeightTransfer.create({
      ...{ ...common, name: `${i}/1`, source: other.model, target: frozen },
    });
    const batches = data.next(parked.step + 1);
    const uses = {
      ...{ park: () => model.park(), parameters: () => model.parameters(), gradients: () => model.gradients() },
      'readLoss, on the last stage': () => (model.speaks ? model.readLoss() : model.parameters()),
      forwardBackward: () => model.forwardBackward(batches, { hooks: optimizer.hooks }),
      ...{ evaluate: () => model.evaluate(batches), score: () => model.score(batches) },
      step: () => optimizer.step(),
      generate: () => generate(model, PROMPTS, { maxTokens: 2 }),
      'a save': () => snapshot.take(),
      'a second optimizer': () => setupOptimizer(cfg, model, { pgCollection }),
      ...Object.fromEntries(Object.entries(transfers).map(([name, transfer]) => [name, () => transfer.run()])),
    };
    for (const [name, use] of Object.entries(uses)) codes[name] = await codeOf(use);
    for (const transfer of Object.values(transfers)) transfer.dispose();
    snapshot.release();
    // One that is parked when it ends.
    frozen.dispose();
    end(other);

    unpark();
    codes.unpark = await codeOf(() => model.unpark());
    update(parked);
    // A second time, into the host memory of the first.
    park();
    unpark();
    for (let step = 1; step < UPDATES; step++) update(parked);
    const found = await remains(parked);
    end(parked);
    const names = ['losses', 'generated', 'scores', 'weights', 'moments'];
    const differ = names.filter((_, part) => found[part] !== wanted[part]);
    const held = { bytes: plan.byRegion(), totalBytes: plan.totalBytes, fell, groups };
    context.emit({ type: 'parked', rank, layout: layout.name, differ, codes, ...held, left: device.binding.handles() });
  }
  runtime.destroyAll();
  device.close();
}
