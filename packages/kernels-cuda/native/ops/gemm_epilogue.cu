// What cuBLASLt's epilogues do, as kernels of their own, for the products whose epilogue it has no algorithm for.
#include "../device.cuh"
#include "../gemm_parts.h"

namespace ds {

namespace {

// f(i, j) for every element of [m, n].
template <class F> __global__ void each_element(int64_t m, int64_t n, F f) {
  const int64_t j = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (j >= n) return;
  for (int64_t i = blockIdx.y; i < m; i += gridDim.y) f(i, j);
}

template <class F> void for_each_element(int64_t m, int64_t n, cudaStream_t stream, const F& f) {
  if (m == 0 || n == 0) return;
  const int threads = n < 256 ? 64 : 256;
  each_element<<<dim3(unsigned((n + threads - 1) / threads), unsigned(m < 4096 ? m : 4096)), threads, 0, stream>>>(m, n, f);
}

constexpr float kTwoK = 1.5957691216057308f;    // 2 sqrt(2 / pi)
constexpr float kTwoKA = 0.07135481282553125f;  // 2 sqrt(2 / pi) * 0.044715

// (1 + tanh u) / 2 = sigmoid(2u), which keeps its relative accuracy for very negative x.
__device__ __forceinline__ float gate(float x) { return 1.0f / (1.0f + __expf(-x * fmaf(kTwoKA, x * x, kTwoK))); }

__device__ __forceinline__ float gelu(float x) { return x * gate(x); }

template <class TC, class TB> struct Seed {
  TC* to;
  const TB* bias;
  int64_t ldc;
  float beta;
  __device__ void operator()(int64_t i, int64_t j) const {
    const float base = beta == 0 ? 0.0f : beta * to_float(to[i * ldc + j]);
    to[i * ldc + j] = from_float<TC>(bias ? base + to_float(bias[j]) : base);
  }
};

template <class TY, class TX> struct Gelu {
  TY* to;
  const TX* from;
  int64_t ldy, ldx;
  __device__ void operator()(int64_t i, int64_t j) const { to[i * ldy + j] = from_float<TY>(gelu(to_float(from[i * ldx + j]))); }
};

// f(Tag<A>{}, Tag<B>{}) with the storage types of two float dtypes.
template <class F> void by_floats(int a, int b, const F& f) {
  by_float(a, [&](auto ta) { by_float(b, [&](auto tb) { f(ta, tb); }); });
}

}  // namespace

void seed_rows(void* c, int c_dtype, int64_t ldc, const void* bias, int bias_dtype, float beta, int64_t m, int64_t n, cudaStream_t stream) {
  by_floats(c_dtype, bias_dtype, [&](auto tc, auto tb) {
    using TC = typename decltype(tc)::type;
    using TB = typename decltype(tb)::type;
    for_each_element(m, n, stream, Seed<TC, TB>{static_cast<TC*>(c), static_cast<const TB*>(bias), ldc, beta});
  });
}

void gelu_rows(void* y, int y_dtype, int64_t ldy, const void* x, int x_dtype, int64_t ldx, int64_t m, int64_t n, cudaStream_t stream) {
  by_floats(y_dtype, x_dtype, [&](auto ty, auto tx) {
    using TY = typename decltype(ty)::type;
    using TX = typename decltype(tx)::type;
    for_each_element(m, n, stream, Gelu<TY, TX>{static_cast<TY*>(y), static_cast<const TX*>(x), ldy, ldx});
  });
}

}  // namespace ds
