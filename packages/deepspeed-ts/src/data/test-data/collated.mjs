// A dataset that collates by itself, out of one large array that no batch may take away from it.
const all = Float32Array.from({ length: 100 }, (_, i) => i / 2);

export default { length: 50, get: (index) => all.subarray(2 * index, 2 * index + 2) };

export const collate = (samples) => ({
  values: { data: samples.length === 1 ? samples[0] : Float32Array.from(samples.flatMap((s) => [...s])), shape: [samples.length, 2] },
});
