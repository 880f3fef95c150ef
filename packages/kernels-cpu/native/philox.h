// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a keyed bijection of a 128-bit
// counter, so element i of a random array is a function of (seed, step, op, i) alone, on every backend and thread count.
//   key = (seedLo, seedHi); counter = (block lo, block hi, step, opKey); block = floor(i / 4), word = i % 4
//   u = (word >>> 8) * 2^-24 in [0, 1); an element is kept by dropout iff u >= p.
#pragma once
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {

struct PhiloxKey {
  uint32_t seed_lo, seed_hi, step, op;
};

// The four words of one block.
DS_INLINE void philox(const PhiloxKey& key, uint64_t block, uint32_t word[4]) {
  uint32_t k0 = key.seed_lo, k1 = key.seed_hi;
  uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = key.step, c3 = key.op;
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// scale[j] = u(first + j) >= p ? kept : 0 for j < n: the factor that dropout multiplies by (kept = 1 / (1 - p)).
DS_INLINE void dropout_factors(const PhiloxKey& key, uint64_t first, int64_t n, float p, float kept, float* scale) {
  uint64_t block = first / 4;
  int word_at = (int)(first % 4);
  for (int64_t j = 0; j < n; block++, word_at = 0) {
    uint32_t word[4];
    philox(key, block, word);
    for (; word_at < 4 && j < n; word_at++, j++)
      scale[j] = (float)(word[word_at] >> 8) * 0x1p-24f >= p ? kept : 0.0f;
  }
}

}  // namespace DS_ISA_NS
}  // namespace ds
