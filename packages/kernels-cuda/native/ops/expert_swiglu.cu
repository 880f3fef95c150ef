// SwiGLU over the experts' rows h [R, 2F] = [gate, up], times the share w that each row has of its token: row r is assignment order[r].
// A block takes a row.
#include "../activation.cuh"
#include "../elementwise.cuh"

namespace ds {
namespace {

constexpr int kMostThreads = 256;

template <int N, class T>
__global__ void __launch_bounds__(kMostThreads) forward(const T* h, const float* weights, const int32_t* order, T* a, int64_t F) {
  const int64_t r = blockIdx.x;
  const float w = weights[order[r]];
  const T *gate = h + r * 2 * F, *up = gate + F;
  for (int64_t i = int64_t(threadIdx.x) * N; i < F; i += blockDim.x * N) {
    float g[N], u[N];
    load<N>(gate + i, g), load<N>(up + i, u);
#pragma unroll
    for (int k = 0; k < N; k++) g[k] = w * (g[k] * sigmoid<kFastMath<T>>(g[k]) * u[k]);
    store_pack(a + r * F + i, packed<T>(g));
  }
}

// da may be a's memory.
template <int N, class T>
__global__ void __launch_bounds__(kMostThreads)
    backward(const T* da, const T* h, const float* weights, const int32_t* order, T* dh, T* a, float* dweights, int64_t F) {
  __shared__ float room[32];
  const int64_t r = blockIdx.x;
  const int assignment = order[r];
  const float w = weights[assignment];
  const T *gate = h + r * 2 * F, *up = gate + F;
  float dw = 0;
  for (int64_t i = int64_t(threadIdx.x) * N; i < F; i += blockDim.x * N) {
    float g[N], u[N], d[N], to[N];
    load<N>(gate + i, g), load<N>(up + i, u), load<N>(da + r * F + i, d);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float s = sigmoid<kFastMath<T>>(g[k]), silu = g[k] * s;
      dw = fmaf(d[k], silu * u[k], dw);
      g[k] = w * d[k] * u[k] * fmaf(silu, 1.0f - s, s);  // silu' = s + g s (1 - s)
      to[k] = w * (silu * u[k]);
      u[k] = w * d[k] * silu;
    }
    store_pack(dh + r * 2 * F + i, packed<T>(g));
    store_pack(dh + r * 2 * F + F + i, packed<T>(u));
    store_pack(a + r * F + i, packed<T>(to));
  }
  dw = block_reduce(dw, 0.0f, room, Sum());
  if (threadIdx.x == 0) dweights[assignment] = dw;
}

const char* check_rows(const char* op, const View& h, const View& weights, const View& order, const View& a) {
  if (h.cols() != 2 * a.cols() || h.rows() != a.rows() || order.numel != a.rows() || weights.numel != a.rows() || a.dtype != h.dtype)
    return error_text("%s: expected h [%lld, %lld] and as many shares and places, got %lld, %lld and %lld elements", op, (long long)a.rows(),
                      (long long)(2 * a.cols()), (long long)h.numel, (long long)weights.numel, (long long)order.numel);
  if (weights.dtype != F32 || order.dtype != I32) return error_text("%s: shares must be f32 and the order i32", op);
  return nullptr;
}

// run(vector length) with threads for F / N vectors.
template <class T, class F> void by_vectors(int64_t columns, bool aligned, const F& run) {
  const auto threads = [&](int n) { return unsigned(std::min<int64_t>(kMostThreads, (columns / n + 31) / 32 * 32)); };
  if (aligned && columns % kVector<T> == 0) run(std::integral_constant<int, kVector<T>>(), threads(kVector<T>));
  else run(std::integral_constant<int, 1>(), threads(1));
}

}  // namespace

KERNEL(expert_swiglu, kFloats) {
  const View &h = c.in[0], &weights = c.in[1], &order = c.in[2], &a = c.out[0];
  if (const char* error = check_rows("expert_swiglu", h, weights, order, a)) return error;
  if (a.numel == 0) return nullptr;
  by_float(h.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    by_vectors<T>(a.cols(), is_aligned(h.data, 16) && is_aligned(a.data, 16), [&](auto n, unsigned threads) {
      forward<decltype(n)::value><<<unsigned(a.rows()), threads, 0, c.stream>>>(h.as<const T>(), weights.as<const float>(), order.as<const int32_t>(),
                                                                              a.as<T>(), a.cols());
    });
  });
  return nullptr;
}

KERNEL(expert_swiglu_backward, kFloats) {
  const View &da = c.in[0], &h = c.in[1], &weights = c.in[2], &order = c.in[3], &dh = c.out[0], &a = c.out[1], &dweights = c.out[2];
  if (const char* error = check_rows("expert_swiglu_backward", h, weights, order, a)) return error;
  if (da.numel != a.numel || da.dtype != a.dtype || dh.numel != h.numel || dh.dtype != h.dtype || dweights.numel != weights.numel)
    return error_text("expert_swiglu_backward: the gradients must be like what they are of");
  if (a.numel == 0) return nullptr;
  by_float(h.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const bool aligned = is_aligned(da.data, 16) && is_aligned(h.data, 16) && is_aligned(dh.data, 16) && is_aligned(a.data, 16);
    by_vectors<T>(a.cols(), aligned, [&](auto n, unsigned threads) {
      backward<decltype(n)::value><<<unsigned(a.rows()), threads, 0, c.stream>>>(da.as<const T>(), h.as<const T>(), weights.as<const float>(),
                                                                               order.as<const int32_t>(), dh.as<T>(), a.as<T>(),
                                                                               dweights.as<float>(), a.cols());
    });
  });
  return nullptr;
}

}  // namespace ds
