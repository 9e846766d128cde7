// A rank that exchanges tensors with the others: all to all, and more transfers at once than any list was made for.
import { STREAM } from '../../dist/src/engine/device.js';
import { MemoryPlan } from '../../dist/src/engine/memory-plan.js';

export async function runRank({ rank, worldSize, device, runtime }) {
  const ranks = Array.from({ length: worldSize }, (_, i) => i);
  const group = await runtime.createGroups('all', [ranks]);
  const alone = await runtime.createGroups(
    'alone',
    ranks.map((r) => [r]),
  );
  const plan = new MemoryPlan();
  const [input, out] = [0, 1].map(() => plan.tensor('communication', [worldSize * 6], 'f32'));
  const many = plan.tensor('communication', [2000], 'f32');
  plan.commit(device);
  const read = (tensor) => {
    const values = new Float32Array(tensor.size);
    device.read(tensor, values);
    return [...values];
  };
  const fill = (tensor, value) =>
    device.write(
      tensor,
      Float32Array.from({ length: tensor.size }, (_, i) => value(i)),
    );

  fill(input, (i) => 100 * rank + i);
  fill(out, () => -1);
  group.allToAll(input, out);
  const equal = read(out);
  // Rank r sends s + 1 elements to rank s, the last first.
  fill(out, () => -1);
  let at = 0;
  const send = ranks.map((s) => ({ offset: (at += s + 1) - (s + 1), count: s + 1 }));
  const receive = ranks.map((r) => ({ offset: (worldSize - 1 - r) * (rank + 2), count: rank + 1 }));
  group.allToAll(input, out, { send, receive });
  const unequal = read(out);
  const sent = read(input);
  fill(out, () => -1);
  alone.allToAll(input, out);
  const single = read(out);

  fill(many, (i) => (i < 1000 ? rank : -1));
  const [next, previous] = [(rank + 1) % worldSize, (rank + worldSize - 1) % worldSize];
  const transfers = Array.from({ length: 1000 }, (_, i) => [
    { kind: 'send', peer: next, tensor: many.slice(i, 1) },
    { kind: 'receive', peer: previous, tensor: many.slice(1000 + i, 1) },
  ]).flat();
  // Each rank lists them another way round, as nothing orders transfers with different peers.
  const listed = rank % 2 === 0 ? transfers : [...transfers].sort((a, b) => (a.kind < b.kind ? -1 : 1));
  // In the order of the writes before it and the reads after it.
  group.exchange(listed, STREAM.compute);
  const received = read(many).slice(1000);
  plan.release();
  return { rank, equal, unequal, sent, single, previous, received };
}
