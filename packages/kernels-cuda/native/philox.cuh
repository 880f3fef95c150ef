// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a keyed bijection of a 128-bit
// counter, so element i of a random array is a function of (seed, step, op, i) alone, on every backend.
//   key = (seedLo, seedHi); counter = (block lo, block hi, step, opKey); block = floor(i / 4), word = i % 4
//   u = (word >>> 8) * 2^-24 in [0, 1); an element is kept by dropout iff u >= p.
#pragma once
#include <cmath>

#include "kernel.h"

namespace ds {

struct PhiloxKey {
  uint32_t seed_lo, seed_hi, step, op;
};

// The four words of one block.
__device__ __forceinline__ uint4 philox(const PhiloxKey& key, uint64_t block) {
  uint32_t k0 = key.seed_lo, k1 = key.seed_hi;
  uint32_t c0 = uint32_t(block), c1 = uint32_t(block >> 32), c2 = key.step, c3 = key.op;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    const uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// An element of random word w is kept iff (w >> 8) >= threshold: u >= p in integers, with p rounded to f32 as on the CPU.
static inline uint32_t dropout_threshold(double p) { return uint32_t(std::ceil(double(float(p)) * 0x1p24)); }

}  // namespace ds
