import { type Fp8State, hostTensor } from '@deepspeed-ts/core';

/** {@link Fp8State} as JSON: the values of a layer are f32, little-endian, in base64. */
export interface SavedFp8State {
  readonly steps: number;
  readonly layers: Readonly<Record<string, string>>;
}

export function saveFp8({ steps, layers }: Fp8State): SavedFp8State {
  const rows = [...layers].map(([name, { data }]) => [name, Buffer.from(Float32Array.from(data).buffer).toString('base64')] as const);
  return { steps, layers: Object.fromEntries(rows) };
}

export function loadFp8({ steps, layers }: SavedFp8State): Fp8State {
  const rows = Object.entries(layers).map(([name, text]) => {
    const bytes = Uint8Array.from(Buffer.from(text, 'base64'));
    const values = new Float32Array(bytes.buffer);
    return [name, hostTensor([3, values.length / 3], 'f32', values)] as const;
  });
  return { steps, layers: new Map(rows) };
}
