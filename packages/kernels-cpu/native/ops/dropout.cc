// y = keep ? x / (1 - p) : 0 (Srivastava et al., 2014), keep decided by Philox at the element's flat index, so backward
// is the same op on dy. Each 64-bit lane carries one Philox block (four elements).
#include "../elementwise.h"
#include "../philox.h"

namespace ds {
namespace DS_ISA_NS {

typedef uint64_t v64 __attribute__((vector_size(VL * 4)));
constexpr int kBlocks = VL / 2;          // Philox blocks in one vector
constexpr int64_t kElements = 4 * kBlocks;  // elements they decide: two vectors of VL

// Product of the low halves of the lanes.
#if DS_ISA_LEVEL == 2
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (v64)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif DS_ISA_LEVEL == 1
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (v64)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#elif defined(__SSE2__)
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (v64)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
DS_INLINE v64 multiply_low(v64 a, v64 b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif

// The words of the blocks first .. first + kBlocks - 1 in element order. As in philox(), with a counter word in the low
// half of each lane; the high halves hold leftovers, which the multiplication ignores.
DS_INLINE void random_words(const PhiloxKey& key, uint64_t first, vu& low, vu& high) {
  v64 c0 = v64{} + first, zero = {};
  for (int i = 0; i < kBlocks; i++) c0[i] += (uint64_t)i;
  v64 c1 = c0 >> 32, c2 = zero + key.step, c3 = zero + key.op;
  uint32_t k0 = key.seed_lo, k1 = key.seed_hi;
  for (int round = 0; round < 10; round++) {
    v64 p0 = multiply_low(c0, zero + 0xD2511F53u), p1 = multiply_low(c2, zero + 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  v64 words01 = (c0 & 0xffffffffu) | (c1 << 32), words23 = (c2 & 0xffffffffu) | (c3 << 32);
  v64 even, odd;  // lane pairs (block i words 0 1, block i words 2 3), first half of the blocks and second half
  v64 pick_low, pick_high;
  for (int i = 0; i < kBlocks; i++) {
    pick_low[i] = (uint64_t)(i / 2 + (i & 1) * kBlocks);
    pick_high[i] = pick_low[i] + kBlocks / 2;
  }
  even = __builtin_shuffle(words01, words23, pick_low);
  odd = __builtin_shuffle(words01, words23, pick_high);
  low = (vu)even, high = (vu)odd;
}

KERNEL(dropout, kFloats) {
  if (const char* error = check_alike(c, "dropout", 1, 1)) return error;
  const double p = c.attrs[0];
  const PhiloxKey key = {(uint32_t)c.attrs[1], (uint32_t)c.attrs[2], (uint32_t)c.attrs[3], (uint32_t)c.attrs[4]};
  const vf kept = splat((float)(1 / (1 - p)));
  // u >= p with u = k 2^-24 is k >= p 2^24; k < 2^24, so the comparison may be signed.
  const vi threshold = splat_i((int32_t)__builtin_ceil((double)(float)p * 0x1p24));
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const T* x = c.in[0].as<const T>();
    T* y = c.out[0].as<T>();
    static_assert(kGrain % kElements == 0, "a task starts at the first element of a Philox block");
    parallel(c.out[0].numel, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t at = begin; at < end; at += kElements) {
        vu word[2];
        random_words(key, (uint64_t)at / 4, word[0], word[1]);
        for (int half = 0; half < 2; half++) {
          int64_t i = at + half * VL, left = end - i;
          if (left <= 0) break;
          vi keeps = (vi)(word[half] >> 8) >= threshold;
          auto drop = [&](auto n) { store(y + i, keeps ? load(x + i, n) * kept : vf{}, n); };
          left >= VL ? drop(All{}) : drop(left);
        }
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
