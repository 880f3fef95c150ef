// out = sum of x^2. Double partials over fixed chunks of 4096 elements, then binary trees over 1024 partials until one is
// left, so that the value depends on the data alone. Inside a chunk, 16 running sums, sum j covering the elements j mod 16, are combined as one binary
// tree; a float squared is exact in double, so every instruction set gives the same bits.
#include "../lanes.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kChunk = 4096;
constexpr int64_t kGroup = 1024;  // partials that a tree combines
constexpr int kDoubleParts = 16 / (VL / 2);  // registers of VL/2 doubles that make 16 sums
constexpr int kVectors = 16 / VL;            // loads of VL floats that feed them

template <class T> DS_INLINE double chunk_sum(const T* x, int64_t n) {
  vd sum[kDoubleParts] = {};
  for (int64_t i = 0; i < n; i += 16)
    for (int k = 0; k < kVectors; k++) {
      int64_t left = n - i - k * VL;
      vf v = left >= VL ? load(x + i + k * VL) : left > 0 ? load(x + i + k * VL, left) : vf{};
      vd low = low_double(v), high = high_double(v);
      sum[2 * k] = fmadd(low, low, sum[2 * k]);
      sum[2 * k + 1] = fmadd(high, high, sum[2 * k + 1]);
    }
  for (int half = kDoubleParts / 2; half > 0; half /= 2)
    for (int p = 0; p < half; p++) sum[p] += sum[p + half];
  return hsum(sum[0]);
}

// The sum of the n doubles at x, which it overwrites, as one tree over kGroup of them, absent ones being zeros.
DS_INLINE double tree_sum(double* x, int64_t n) {
  for (int64_t half = kGroup / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half && i + half < n; i++) x[i] += x[i + half];
    n = n < half ? n : half;
  }
  return x[0];
}

KERNEL(sum_squares, kFloats) {
  const View& x = c.in[0];
  const int64_t chunks = (x.numel + kChunk - 1) / kChunk;
  double* partial = static_cast<double*>(scratch(-1, 0, (size_t)(chunks + 1) * sizeof(double)));
  if (partial == nullptr) return kNoWorkspace;
  by_float(x.dtype, [&](auto t) {
    const auto* data = x.as<const decltype(t)>();
    parallel(chunks, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t chunk = begin; chunk < end; chunk++) {
        int64_t left = x.numel - chunk * kChunk;
        partial[chunk] = chunk_sum(data + chunk * kChunk, left < kChunk ? left : kChunk);
      }
    });
  });
  int64_t count = chunks;
  do {
    const int64_t groups = (count + kGroup - 1) / kGroup;
    for (int64_t group = 0; group < groups; group++) {
      int64_t left = count - group * kGroup;
      partial[group] = tree_sum(partial + group * kGroup, left < kGroup ? left : kGroup);
    }
    count = groups;
  } while (count > 1);
  *c.out[0].as<float>() = chunks == 0 ? 0 : (float)partial[0];
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
