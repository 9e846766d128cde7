/**
 * A loss of one's own that has to talk to other ranks: cross entropy with smoothed labels, over a vocabulary that is cut
 * over tensor-parallel ranks. The arithmetic is plain JavaScript, as a first version may be, for float32 logits.
 *
 * label-smoothing-rank.ts is what runs on a rank of its test, test/examples/label-smoothing.test.ts.
 */
import type { Loss } from '../../src/index.js';

/** Of each token (1 - epsilon) * cross entropy of the target + epsilon * the mean of that of all tokens there are. */
export function labelSmoothing(epsilon: number): Loss {
  return {
    name: 'label_smoothing',
    fields: [
      { name: 'targets', dtype: 'i32' },
      { name: 'mask', dtype: 'f32' },
    ],
    totals: [],
    plan: (env, { lossAndTokens }) => {
      const { tokens, vocab, vocabStart } = env.sizes;
      const max = env.plan.tensor('workspace', [tokens], 'f32');
      const sums = env.plan.tensor('workspace', [3, tokens], 'f32');
      const added = env.plan.tensor('workspace', [2], 'f32');
      const uniform = epsilon / env.shape.vocabSize;
      return {
        apply: (logits, fields) => {
          const { ops, tp } = env;
          const { device } = ops;
          const [x, targets, mask] = [
            new Float32Array(tokens * vocab),
            new Int32Array(tokens),
            new Float32Array(tokens),
          ];
          device.read(logits, x);
          device.read(fields('targets'), targets);
          device.read(fields('mask'), mask);
          // The target's column in this rank's part of the vocabulary, if it is there.
          const at = targets.map((target) =>
            target >= vocabStart && target < vocabStart + vocab ? target - vocabStart : -1,
          );

          const most = new Float32Array(tokens);
          for (let t = 0; t < tokens; t++) most[t] = Math.max(...x.subarray(t * vocab, (t + 1) * vocab));
          device.write(max, most);
          tp.allReduce(max, 'max');
          device.read(max, most);

          // Rows: exponentials, the target's logit, all logits.
          const sum = new Float32Array(3 * tokens);
          for (let t = 0; t < tokens; t++) {
            const row = x.subarray(t * vocab, (t + 1) * vocab);
            sum[t] = row.reduce((all, value) => all + Math.exp(value - most[t]!), 0);
            sum[tokens + t] = row[at[t]!] ?? 0;
            sum[2 * tokens + t] = row.reduce((all, value) => all + value, 0);
          }
          device.write(sums, sum);
          tp.allReduce(sums, 'sum');
          device.read(sums, sum);

          let [loss, counted] = [0, 0];
          for (let t = 0; t < tokens; t++) {
            const logZ = most[t]! + Math.log(sum[t]!);
            const [target, all] = [sum[tokens + t]!, sum[2 * tokens + t]!];
            loss += mask[t]! * (logZ - (1 - epsilon) * target - uniform * all);
            counted += mask[t]!;
            for (let v = 0; v < vocab; v++) {
              const wanted = uniform + (v === at[t] ? 1 - epsilon : 0);
              x[t * vocab + v] = mask[t]! * (Math.exp(x[t * vocab + v]! - logZ) - wanted);
            }
          }
          device.write(logits, x);
          device.write(added, Float32Array.of(loss, counted));
          ops.add(lossAndTokens, added, lossAndTokens);
        },
      };
    },
  };
}
