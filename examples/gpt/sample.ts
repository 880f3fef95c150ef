import { type CausalLM, type Device, noGrad, scope, streamOf, tensor, uniforms } from 'deepspeed-ts';

export interface SampleOptions {
  readonly model: CausalLM;
  readonly device: Device;
  /** Longest input of the model; older tokens are forgotten. */
  readonly context: number;
  /** What to go on from; at least one token. */
  readonly prompt: readonly number[];
  readonly count: number;
  /** Below 1 the likely becomes likelier; 0 always takes the likeliest. */
  readonly temperature: number;
  /** Choose among this many of the likeliest tokens. */
  readonly topK: number;
  readonly seed: number;
}

/**
 * Draws tokens one after the other. Under ZeRO-3 every rank must take part, for each holds a part of the weights; all get the same
 * tokens.
 */
export async function* sample(options: SampleOptions): AsyncGenerator<number> {
  const { model, device, context, prompt, count, temperature, topK, seed } = options;
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const window = ids.slice(-context);
    const last = noGrad(() =>
      scope(() => {
        const logits = model.logits(tensor(device, window, 'i32', [1, window.length]));
        return logits.view([window.length, -1]).narrow(window.length - 1, 1);
      }),
    ).keep();
    const { data } = await last.read();
    last.dispose();
    const [u = 0] = uniforms({ seed, step: i, stream: streamOf('sample') }, 0, 1);
    const next = choose(data, { temperature, topK, u });
    ids.push(next);
    yield next;
  }
}

/**
 * The token whose share of [0, 1) holds `u`, when the shares are softmax(logits / temperature) over the `topK` largest logits in
 * falling order.
 */
export function choose(logits: ArrayLike<number>, { temperature, topK, u }: { temperature: number; topK: number; u: number }): number {
  const order = Array.from({ length: logits.length }, (_, id) => id).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const likeliest = order[0]!;
  if (temperature === 0) return likeliest;
  const kept = order.slice(0, topK);
  const weights = kept.map((id) => Math.exp((logits[id]! - logits[likeliest]!) / temperature));
  let left = u * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [i, weight] of weights.entries()) {
    left -= weight;
    if (left < 0) return kept[i]!;
  }
  return kept.at(-1)!;
}
