import {
  attention,
  type Backend,
  backward,
  type Device,
  fromHost,
  LocalStore,
  mul,
  noGrad,
  Random,
  rope,
  scope,
  tensor,
  watch,
} from '@deepspeed-ts/core';
import { DecoderLM, decoderConfig, documentPositions, gpt2, nextTokenLabels } from '@deepspeed-ts/transformers';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { relativeError } from './golden.js';
import { withDevice } from './with-device.js';

const TOLERANCE = 2e-5;

const families = {
  'with rotary positions and grouped heads': decoderConfig({
    model_type: 'llama',
    vocab_size: 37,
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 48,
    max_position_embeddings: 64,
  }),
  'with learned positions': gpt2({ vocabSize: 37, layers: 2, heads: 2, dim: 32, context: 64 }),
};

/** Rows of documents, by their lengths; every row has as many tokens. */
const packings = fc
  .integer({ min: 1, max: 40 })
  .chain((tokens) =>
    fc
      .array(fc.array(fc.integer({ min: 1, max: tokens }), { maxLength: 6 }), { minLength: 1, maxLength: 3 })
      .map((rows) => ({ tokens, rows: rows.map((lengths) => cut(lengths, tokens)) })),
  );

/** The lengths that fit into the row, and what is left as a last document. */
function cut(lengths: readonly number[], tokens: number): number[] {
  const taken: number[] = [];
  let left = tokens;
  for (const length of lengths) {
    if (length > left) break;
    taken.push(length);
    left -= length;
  }
  return left > 0 ? [...taken, left] : taken;
}

/** Tests that documents packed into rows give what they give in rows of their own. */
export function packedDocuments(name: string, open: () => Backend): void {
  describe(`on ${name} documents that share a row`, () => {
    test.each(Object.entries(families))('give the logits, loss and gradients of rows of their own: a model %s', (_, config) =>
      withDevice(open(), (device) => {
        const lm = new DecoderLM(config);
        const store = new LocalStore(lm, device);
        fc.assert(
          fc.property(packings, fc.boolean(), ({ tokens, rows }, recompute) => {
            lm.recompute = recompute;
            const packed = run(lm, store, device, pack(tokens, rows));
            const apart = run(lm, store, device, separate(tokens, rows));
            const starts = rows.flatMap((lengths) => lengths.map((length) => ({ length })));
            let at = 0;
            for (const [document, { length }] of starts.entries()) {
              const size = length * config.vocabSize;
              const own = apart.logits.subarray(document * tokens * config.vocabSize).subarray(0, size);
              expect(relativeError(packed.logits.subarray(at, at + size), own), `logits of document ${document}`).toBeLessThan(TOLERANCE);
              at += size;
            }
            if (starts.every(({ length }) => length === 1)) return; // no token has a next one: there is no loss
            expect(relativeError(packed.loss, apart.loss)).toBeLessThan(TOLERANCE);
            // Beside the largest gradient: those of queries and keys may be nothing but rounding.
            const largest = Math.max(...[...apart.gradients.values()].map((gradient) => Math.hypot(...gradient)));
            for (const [parameter, gradient] of packed.gradients) {
              const difference = gradient.map((value, i) => value - apart.gradients.get(parameter)![i]!);
              expect(Math.hypot(...difference), parameter).toBeLessThan(TOLERANCE * largest);
            }
          }),
          { numRuns: 12, seed: 5 },
        );
        store.dispose();
        lm.dispose();
      }),
    );

    test('leave what other documents compute alone, to the last bit', () =>
      withDevice(open(), (device) => {
        const positions = documentPositions([50, 1, 79], 130);
        const outputs = [0, 1].map((other) => {
          const qkv = new Random(3).randn(1, 130, 3 * 64);
          if (other) for (let i = 0; i < 51 * 3 * 64; i++) qkv.data[i] = 5 - qkv.data[i]!;
          return scope(() => {
            const [x, ids] = [watch(fromHost(device, qkv)), tensor(device, positions, 'i32', [1, 130])];
            const y = attention(x.tensor, { heads: 1, headDim: 64, positions: ids });
            backward(mul(y, fromHost(device, new Random(4).randn(1, 130, 64))), fromHost(device, new Random(5).randn(1, 130, 64)));
            const gradient = x.leaf.gradient!;
            const results = [y.readSync().data.slice(51 * 64), gradient.readSync().data.slice(51 * 3 * 64)];
            gradient.dispose();
            return results;
          });
        });
        expect(outputs[1]).toEqual(outputs[0]);
      }));

    test('are refused where positions do not count from 0 in each', () =>
      withDevice(open(), (device) => {
        scope(() => {
          const qkv = fromHost(device, new Random().randn(1, 4, 12));
          const run = (values: number[]) => () =>
            attention(qkv, { heads: 1, headDim: 4, positions: tensor(device, values, 'i32', [1, 4]) }).readSync();
          expect(run([1, 2, 0, 1])).toThrow('position 1');
          expect(run([0, 1, 3, 4])).toThrow('position 3');
          expect(run([0, 1, -1, 0])).toThrow('position -1');
          expect(run([0, 0, 1, 0])).not.toThrow();
        });
      }));

    test('are refused where a position is outside the table of angles', () =>
      withDevice(open(), (device) => {
        scope(() => {
          const x = fromHost(device, new Random().randn(1, 2, 4));
          const table = fromHost(device, new Random().randn(3, 2));
          const positions = tensor(device, [0, 3], 'i32', [1, 2]);
          expect(() => rope(x, table, table, { rotatedHeads: 1, headDim: 4, positions }).readSync()).toThrow('position 3');
        });
      }));
  });
}

interface Rows {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
  readonly positions?: Int32Array;
  readonly shape: readonly [number, number];
}

const tokenAt = (row: number, i: number) => (row * 31 + i * 17 + i * i) % 37;

function pack(tokens: number, rows: readonly (readonly number[])[]): Rows {
  const ids = Int32Array.from({ length: rows.length * tokens }, (_, at) => tokenAt(Math.floor(at / tokens), at % tokens));
  const positions = Int32Array.from(rows.flatMap((lengths) => [...documentPositions(lengths, tokens)]));
  return { ids, positions, labels: nextTokenLabels(ids, tokens, positions), shape: [rows.length, tokens] };
}

/** Each document in a row of its own, zeros after it that no label asks for. */
function separate(tokens: number, rows: readonly (readonly number[])[]): Rows {
  const packed = pack(tokens, rows);
  const count = rows.reduce((sum, lengths) => sum + lengths.length, 0);
  const ids = new Int32Array(count * tokens);
  const labels = new Int32Array(count * tokens).fill(-100);
  let [from, document] = [0, 0];
  for (const length of rows.flat()) {
    ids.set(packed.ids.subarray(from, from + length), document * tokens);
    labels.set(packed.labels.subarray(from, from + length), document * tokens);
    from += length;
    document++;
  }
  return { ids, labels, shape: [count, tokens] };
}

function run(lm: DecoderLM, store: LocalStore, device: Device, { ids, labels, positions, shape }: Rows) {
  return scope(() => {
    const inputIds = tensor(device, ids, 'i32', shape);
    const positionIds = positions && tensor(device, positions, 'i32', shape);
    const logits = noGrad(() => lm.logits(inputIds, positionIds)).readSync().data;
    const loss = lm.call({ inputIds, labels: tensor(device, labels, 'i32', shape), positionIds });
    const value = loss.readSync().data;
    backward(loss);
    const gradients = new Map([...store.stateDict().keys()].map((name) => [name, store.gradientOf(name)!.readSync().data]));
    store.zeroGrad();
    return { logits, loss: value, gradients };
  });
}
