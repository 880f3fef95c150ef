import { type DecoderConfig, decoderConfig, gpt2 } from '@deepspeed-ts/transformers';

/** The models whose training is measured: bench/peers/torch_model.py has the same. */
export interface Shape {
  readonly kind: 'gpt2' | 'llama';
  readonly layers: number;
  readonly dim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
  readonly vocab: number;
  readonly seq: number;
}

export const shapes: Readonly<Record<string, Shape>> = {
  'gpt2-tiny': { kind: 'gpt2', layers: 2, dim: 64, heads: 2, kvHeads: 2, ffn: 256, vocab: 512, seq: 64 },
  'gpt2-124m': { kind: 'gpt2', layers: 12, dim: 768, heads: 12, kvHeads: 12, ffn: 3072, vocab: 50304, seq: 1024 },
  'gpt2-1.5b': { kind: 'gpt2', layers: 48, dim: 1600, heads: 25, kvHeads: 25, ffn: 6400, vocab: 50304, seq: 1024 },
  'llama-0.6b': { kind: 'llama', layers: 8, dim: 2048, heads: 32, kvHeads: 8, ffn: 8192, vocab: 32000, seq: 2048 },
  'llama-134m': { kind: 'llama', layers: 12, dim: 768, heads: 12, kvHeads: 12, ffn: 2048, vocab: 32000, seq: 1024 },
  'llama-1b': { kind: 'llama', layers: 16, dim: 2048, heads: 32, kvHeads: 8, ffn: 8192, vocab: 128256, seq: 2048 },
  'llama-8b': { kind: 'llama', layers: 32, dim: 4096, heads: 32, kvHeads: 8, ffn: 14336, vocab: 128256, seq: 2048 },
};

export function configOf({ kind, layers, dim, heads, kvHeads, ffn, vocab, seq }: Shape): DecoderConfig {
  if (kind === 'gpt2') return gpt2({ vocabSize: vocab, layers, heads, dim, context: seq });
  return decoderConfig({
    model_type: 'llama',
    vocab_size: vocab,
    hidden_size: dim,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    intermediate_size: ffn,
    max_position_embeddings: seq,
    rms_norm_eps: 1e-5,
    rope_theta: 5e5,
    tie_word_embeddings: false,
  });
}

/**
 * 6 FLOPs for each weight of a matrix product, and 6 · layers · dim · seq for causal attention (PaLM, appendix B, halved for the mask).
 * Recomputation does not count.
 */
export function flopsPerToken({ kind, layers, dim, heads, kvHeads, ffn, vocab, seq }: Shape): number {
  const attention = dim * (dim / heads) * (2 * heads + 2 * kvHeads);
  const mlp = dim * ffn * (kind === 'llama' ? 3 : 2);
  return 6 * (layers * (attention + mlp) + vocab * dim) + 6 * layers * dim * seq;
}
