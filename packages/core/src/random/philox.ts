/**
 * Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). A value depends
 * on the key and its index alone, so any rank can draw any slice, a recomputed block draws the same mask, and a resumed run
 * goes on where it stopped. Kernels compute the same bits (native/philox.h).
 */
const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

export interface RandomKey {
  /** Up to 53 bits; the low and high 32 are the Philox key. */
  readonly seed: number;
  /** Third counter word: a training step, say. */
  readonly step?: number;
  /** Fourth counter word: which op or parameter draws. */
  readonly stream?: number;
}

/** The block of four 32-bit words at counter (blockLow, blockHigh, step, stream). */
export function philox(
  out: Uint32Array,
  seedLow: number,
  seedHigh: number,
  blockLow: number,
  blockHigh: number,
  step: number,
  stream: number,
): void {
  let c0 = blockLow >>> 0;
  let c1 = blockHigh >>> 0;
  let c2 = step >>> 0;
  let c3 = stream >>> 0;
  let k0 = seedLow >>> 0;
  let k1 = seedHigh >>> 0;
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(M0, c0);
    const low0 = Math.imul(M0, c0) >>> 0;
    const high1 = mulHigh(M1, c2);
    const low1 = Math.imul(M1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** `count` uniforms in [0, 1) from index `start` on, each from the top 24 bits of its word. */
export function uniforms(key: RandomKey, start: number, count: number): Float64Array {
  const [low, high] = splitSeed(key.seed);
  const out = new Float64Array(count);
  const words = new Uint32Array(4);
  let loaded = -1;
  for (let i = 0; i < count; i++) {
    const index = start + i;
    const block = Math.floor(index / 4);
    if (block !== loaded) {
      philox(words, low, high, block >>> 0, Math.floor(block / 2 ** 32), key.step ?? 0, key.stream ?? 0);
      loaded = block;
    }
    out[i] = (words[index % 4]! >>> 8) * 2 ** -24;
  }
  return out;
}

/** `count` standard normals from index `start` on (Box-Muller: values 2k and 2k+1 share two uniforms). */
export function normals(key: RandomKey, start: number, count: number): Float64Array {
  const first = start - (start % 2);
  const u = uniforms(key, first, count + (start - first) + 1);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const index = start + i;
    const pair = index - (index % 2) - first;
    // 1 - u is in (0, 1], where the logarithm is finite.
    const radius = Math.sqrt(-2 * Math.log(1 - u[pair]!));
    const angle = 2 * Math.PI * u[pair + 1]!;
    out[i] = radius * (index % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
  }
  return out;
}

export function splitSeed(seed: number): [low: number, high: number] {
  return [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
}

/** FNV-1a: a stream number from a parameter's name. */
export function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

function mulHigh(a: number, b: number): number {
  // 32 x 32 -> high 32 bits, by 16-bit halves: products of doubles above 2^53 would round.
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle1 = aHigh * bLow + (low >>> 16);
  const middle2 = aLow * bHigh + (middle1 & 0xffff);
  return (aHigh * bHigh + Math.floor(middle1 / 65536) + Math.floor(middle2 / 65536)) >>> 0;
}
