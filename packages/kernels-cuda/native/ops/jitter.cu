// y = x (1 + p (2u - 1)), u by Philox at the element's flat index, so backward is the same op on dy.
#include "../elementwise.cuh"
#include "../philox.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256;

// A thread takes the four elements of a Philox block.
template <class T> __global__ void __launch_bounds__(kThreads) shake(int64_t n, PhiloxKey key, float least, float slope, const T* x, T* y) {
  const int64_t block = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (block * 4 >= n) return;
  const uint4 words = philox(key, uint64_t(block));
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int k = 0; k < 4; k++)
    if (const int64_t i = block * 4 + k; i < n) y[i] = from_float<T>(to_float(x[i]) * fmaf(float(word[k] >> 8), slope, least));
}

}  // namespace

KERNEL(jitter, kFloats) {
  if (const char* error = check_alike(c, "jitter", 1, 1)) return error;
  const double p = c.attrs[0];
  const PhiloxKey key = {uint32_t(c.attrs[1]), uint32_t(c.attrs[2]), uint32_t(c.attrs[3]), uint32_t(c.attrs[4])};
  const int64_t n = c.out[0].numel;
  if (n == 0) return nullptr;
  by_float(c.in[0].dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    shake<<<unsigned((n + 4 * kThreads - 1) / (4 * kThreads)), kThreads, 0, c.stream>>>(n, key, float(1 - p), float(2 * p * 0x1p-24),
                                                                                      c.in[0].as<const T>(), c.out[0].as<T>());
  });
  return nullptr;
}

}  // namespace ds
