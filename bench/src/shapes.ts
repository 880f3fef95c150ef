/** Matrix products of training, [M, N, K] with how the operands are stored: y = x w' (NT), dx = dy w (NN), dw = dy' x (TN). */
export const trainingProducts: readonly {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly layout: 'NT' | 'NN' | 'TN';
}[] = [
  { m: 2048, n: 1152, k: 384, layout: 'NT' },
  { m: 2048, n: 384, k: 384, layout: 'NT' },
  { m: 2048, n: 1536, k: 384, layout: 'NT' },
  { m: 2048, n: 384, k: 1536, layout: 'NT' },
  { m: 2048, n: 384, k: 1152, layout: 'NN' },
  { m: 2048, n: 1536, k: 384, layout: 'NN' },
  { m: 2048, n: 384, k: 1536, layout: 'NN' },
  { m: 1152, n: 384, k: 2048, layout: 'TN' },
  { m: 1536, n: 384, k: 2048, layout: 'TN' },
  { m: 384, n: 1536, k: 2048, layout: 'TN' },
  { m: 1024, n: 3072, k: 768, layout: 'NT' },
  { m: 1024, n: 768, k: 3072, layout: 'NN' },
  { m: 3072, n: 768, k: 1024, layout: 'TN' },
  { m: 512, n: 256, k: 256, layout: 'NT' },
];

/** The GPT whose step is measured: 10.8 million parameters. */
export const gptShape = { layers: 6, dim: 384, heads: 6, context: 256, batch: 8, vocabSize: 256 } as const;
