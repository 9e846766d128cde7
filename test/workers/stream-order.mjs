// A worker that trains while it watches every call of the engine, as a GPU would order them: streams run beside each
// other, and only events (or a host that waits) order one after another. Reports accesses that nothing orders.
import { COMM_OPS, OPS } from '../../dist/src/engine/op-table.js';
import { RunCheckpoints } from '../../dist/src/index.js';
import { setUp } from './set-up.mjs';

/** Tensors that an op writes, by number; the others it reads. One that is changed or used as scratch is written. */
const written = (ops) =>
  Object.values(ops).map(({ tensors }) =>
    Object.values(tensors).flatMap((access, i) => (access.startsWith('r') && !access.startsWith('rw') ? [] : [i])),
  );
const WRITTEN = written(OPS);
const COMM_WRITTEN = written(COMM_OPS);
const STREAMS = 5;

/** What happened before what: a vector clock a stream. `blind` ignores events, to show what they order. */
class Order {
  constructor(blind) {
    this.blind = blind;
    this.clocks = Array.from({ length: STREAMS }, () => new Array(STREAMS).fill(0));
    this.host = new Array(STREAMS).fill(0);
    this.events = new Map();
    this.accesses = new Map();
    this.races = new Set();
  }

  record(stream, event) {
    this.events.set(event, [...this.clocks[stream]]);
  }

  wait(stream, event) {
    const at = this.events.get(event);
    if (at === undefined) throw new Error(`event ${event} was never recorded`);
    if (!this.blind) merge(this.clocks[stream], at);
  }

  /** The host has waited for what the stream was given. */
  join(stream) {
    merge(this.host, this.clocks[stream]);
  }

  run(stream, label, reads, writes) {
    const clock = this.clocks[stream];
    merge(clock, this.host);
    clock[stream]++;
    for (const [list, write] of [
      [reads, false],
      [writes, true],
    ]) {
      for (const part of list) this.access(part, write, stream, label);
    }
  }

  access({ arena, start, end }, write, stream, label) {
    if (start === end) return;
    const known = this.accesses.get(arena) ?? this.accesses.set(arena, new Map()).get(arena);
    const clock = this.clocks[stream];
    for (const other of known.values()) {
      if (other.end <= start || other.start >= end || other.stream === stream || !(write || other.write)) continue;
      if (clock[other.stream] < other.tick) {
        const verb = (isWrite) => (isWrite ? 'writes' : 'reads');
        this.races.add(
          `${label} on stream ${stream} ${verb(write)} what ${other.label} on stream ${other.stream} ${verb(other.write)}`,
        );
      }
    }
    known.set(`${start} ${end} ${write} ${stream}`, { start, end, write, stream, tick: clock[stream], label });
  }
}

function merge(into, from) {
  from.forEach((tick, i) => (into[i] = Math.max(into[i], tick)));
}

/** The binding, with every call shown to `orders` first. */
function watched(binding, orders, fused) {
  const { args } = binding;
  const tensor = (i, list = args) => ({
    arena: list[4 * i],
    start: list[4 * i + 1],
    end: list[4 * i + 1] + list[4 * i + 2],
  });
  const each = (act) => orders.forEach(act);
  const run = (stream, label, reads, writes) => each((order) => order.run(stream, label, reads, writes));
  const runOp = (stream, label, count, written) => {
    const all = Array.from({ length: count }, (_unused, i) => i).filter((i) => args[4 * i] >= 0);
    const places = (wanted) => all.filter((i) => written.includes(i) === wanted).map((i) => tensor(i));
    run(stream, label, places(false), places(true));
  };
  const calls = {
    record: (_, stream, event) => each((order) => order.record(stream, event)),
    wait: (_, stream, event) => each((order) => order.wait(stream, event)),
    run: (_, stream, op, count) => runOp(stream, `op ${op}`, count, WRITTEN[op]),
    commRun: (_, stream, op, count) => {
      if (op === COMM_OPS.allReduceSmall.number) fused.reduced++;
      else fused.calls++;
      runOp(stream, `communicator op ${op}`, count, COMM_WRITTEN[op]);
    },
    write: (_, stream) => run(stream, 'write', [], [tensor(0)]),
    read: (_, stream) => {
      run(stream, 'read', [tensor(0)], []);
      each((order) => order.join(stream));
    },
    readAsync: (_, stream) => run(stream, 'readAsync', [tensor(0)], []),
    fetchBegin: (_, stream) => run(stream, 'fetch', [tensor(0)], []),
    copy: (_, stream) => run(stream, 'copy', [tensor(0)], [tensor(1)]),
    allReduce: (_, stream) => run(stream, 'allReduce', [tensor(0)], [tensor(1)]),
    reduceScatter: (_, stream) => run(stream, 'reduceScatter', [tensor(0)], [tensor(1)]),
    allGather: (_, stream) => {
      const [input, out] = [tensor(0), tensor(1)];
      // In place, a rank's own part is not written.
      const inside = input.arena === out.arena && input.start >= out.start && input.end <= out.end;
      const writes = inside
        ? [
            { ...out, end: input.start },
            { ...out, start: input.end },
          ]
        : [out];
      run(stream, 'allGather', [input], writes);
    },
    allToAll: (_, stream) => run(stream, 'allToAll', [tensor(0)], [tensor(1)]),
    broadcast: (_, stream) => run(stream, 'broadcast', [], [tensor(0)]),
    p2p: (_, stream, list) => {
      const count = list.length / 6;
      const all = Array.from({ length: count }, (_unused, i) => ({
        place: tensor(i, list),
        sent: list[4 * count + 2 * i + 1],
      }));
      const places = (sent) => all.filter((one) => one.sent === sent).map(({ place }) => place);
      run(stream, 'p2p', places(1), places(0));
    },
    synchronize: () => each((order) => order.clocks.forEach((_unused, stream) => order.join(stream))),
  };
  const shown = {};
  for (const name of Object.getOwnPropertyNames(binding)) {
    const value = binding[name];
    if (typeof value !== 'function') {
      shown[name] = value;
      continue;
    }
    shown[name] = (...rest) => {
      calls[name]?.(...rest);
      return value.apply(binding, rest);
    };
  }
  return shown;
}

export async function runWorker(context) {
  const { config: cfg, rank, store, log } = context;
  const orders = [new Order(false), new Order(true)];
  const fused = { calls: 0, reduced: 0 };
  const run = await setUp(context, (opened) => {
    opened.binding = watched(opened.binding, orders, fused);
  });
  const { device, layout, pgCollection, model, optimizer, data } = run;
  const checkpoints = await RunCheckpoints.open({ cfg, layout, device, store, groups: pgCollection, log });
  await checkpoints.begin(optimizer.state, data);
  for (let step = 1; step <= 3; step++) {
    model.forwardBackward(data.next(step), { hooks: optimizer.hooks });
    optimizer.step();
    await checkpoints.onUpdate(step);
    if (step === 2) model.evaluate(data.next(step));
  }
  await checkpoints.finish(3);
  const [races, blind] = orders.map((order) => [...order.races]);
  context.emit({ type: 'order', rank, races, blind: blind.length, fused: fused.calls, reduced: fused.reduced });
  await run.close();
}
