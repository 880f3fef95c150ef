// y [N, C]: of each token the sum of its k rows of x [N k, C] at place[token k + j], in order of j, in f32 with one rounding.
#include "../elementwise.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256;

template <int N, class T>
__global__ void __launch_bounds__(kThreads) combine_rows(const T* x, const int32_t* place, T* y, int64_t tokens, int vectors, int k) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, token = i / vectors;
  if (token >= tokens) return;
  const int64_t at = (i - token * vectors) * N, C = int64_t(vectors) * N;
  float sum[N], row[N];
  load<N>(x + place[token * k] * C + at, sum);
  for (int j = 1; j < k; j++) {
    load<N>(x + place[token * k + j] * C + at, row);
#pragma unroll
    for (int u = 0; u < N; u++) sum[u] += row[u];
  }
  store_pack(y + token * C + at, packed<T>(sum));
}

}  // namespace

KERNEL(combine, kFloats) {
  const View &x = c.in[0], &place = c.in[1], &y = c.out[0];
  const int64_t k = int64_t(c.attrs[0]), C = y.cols();
  if (x.cols() != C || x.dtype != y.dtype || y.rows() * k != x.rows() || place.numel != x.rows() || place.dtype != I32)
    return error_text("combine: %lld rows and %lld places are not %lld for each of %lld tokens", (long long)x.rows(), (long long)place.numel,
                      (long long)k, (long long)y.rows());
  if (y.numel == 0) return nullptr;
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const auto run = [&](auto n) {
      constexpr int N = decltype(n)::value;
      const int64_t blocks = (y.numel / N + kThreads - 1) / kThreads;
      combine_rows<N><<<unsigned(blocks), kThreads, 0, c.stream>>>(x.as<const T>(), place.as<const int32_t>(), y.as<T>(), y.rows(), int(C / N), int(k));
    };
    if (C % kVector<T> == 0 && is_aligned(x.data, 16) && is_aligned(y.data, 16)) run(std::integral_constant<int, kVector<T>>());
    else run(std::integral_constant<int, 1>());
  });
  return nullptr;
}

}  // namespace ds
