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

// ---- one block in each 64-bit lane ---------------------------------------------------------------------
typedef uint64_t v64 __attribute__((vector_size(VL * 4)));
constexpr int kPhiloxBlocks = VL / 2;                 // blocks at once
constexpr int kPhiloxElements = 4 * kPhiloxBlocks;  // elements they decide: two vectors of VL

// Product of the low halves of the lanes.
#if DS_ISA_LEVEL == 2
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (v64)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b); }
#elif DS_ISA_LEVEL == 1
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (v64)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#elif defined(__SSE2__)
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (v64)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif

// The words of the blocks first .. first + kPhiloxBlocks - 1 in element order: word[0] holds elements 0 .. VL - 1.
DS_INLINE void philox(const PhiloxKey& key, uint64_t first, vu word[2]) {
  v64 zero = {}, c0 = zero + first, c2 = zero + key.step, c3 = zero + key.op;
  for (int i = 0; i < kPhiloxBlocks; i++) c0[i] += (uint64_t)i;
  v64 c1 = c0 >> 32;
  uint32_t k0 = key.seed_lo, k1 = key.seed_hi;
  for (int round = 0; round < 10; round++) {  // leftovers in the high halves are harmless: multiply_low ignores them
    v64 p0 = multiply_low(c0, zero + 0xD2511F53u), p1 = multiply_low(c2, zero + 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  v64 words01 = (c0 & 0xffffffffu) | (c1 << 32), words23 = (c2 & 0xffffffffu) | (c3 << 32);
  v64 pick = {};  // lane 2i is words 0 and 1 of block i, lane 2i + 1 its words 2 and 3
  for (int i = 0; i < kPhiloxBlocks; i++) pick[i] = (uint64_t)(i / 2 + (i & 1) * kPhiloxBlocks);
  word[0] = (vu)__builtin_shuffle(words01, words23, pick);
  word[1] = (vu)__builtin_shuffle(words01, words23, pick + kPhiloxBlocks / 2);
}

// factor[j] = u(first + j) >= p ? 1 / (1 - p) : 0 for j < n, what dropout multiplies by. The result lies in `room`, which
// holds n + 4 + kPhiloxElements floats.
static inline const float* dropout_factors(const PhiloxKey& key, uint64_t first, int64_t n, double p, float* room) {
  const int64_t skip = (int64_t)(first % 4);
  const vf kept = splat((float)(1 / (1 - p)));
  const vi threshold = splat_i((int32_t)__builtin_ceil((double)(float)p * 0x1p24));  // u = k 2^-24 >= p, in integers
  for (int64_t at = 0; at < skip + n; at += kPhiloxElements) {
    vu word[2];
    philox(key, (first - (uint64_t)skip + (uint64_t)at) / 4, word);
    for (int half = 0; half < 2; half++) store(room + at + half * VL, (vi)(word[half] >> 8) >= threshold ? kept : vf{});
  }
  return room + skip;
}

}  // namespace DS_ISA_NS
}  // namespace ds
