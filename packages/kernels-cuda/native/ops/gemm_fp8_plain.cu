// Products in 8 bits of any size, without tensor cores; and codes to time cuBLASLt's algorithms on.
#include <cuda_fp8.h>

#include "../device.cuh"
#include "../gemm_fp8.h"

namespace ds {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float value_of(uint8_t code, bool e5m2) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, e5m2 ? __NV_E5M2 : __NV_E4M3)));
}

template <class T> __global__ void __launch_bounds__(kThreads) plain_kernel(Fp8Gemm g) {
  const float scale = *g.scale_a * *g.scale_b;
  T* out = static_cast<T*>(g.c);
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < g.m * g.n; i += int64_t(gridDim.x) * kThreads) {
    const int64_t row = i / g.n, col = i - row * g.n;
    const uint8_t *a = static_cast<const uint8_t*>(g.a) + row * g.k, *b = static_cast<const uint8_t*>(g.b) + col * g.k;
    float sum = 0;
    for (int64_t k = 0; k < g.k; k++) sum = fmaf(value_of(a[k], g.a_e5m2), value_of(b[k], g.b_e5m2), sum);
    sum *= scale;
    if (g.bias) sum += to_float(static_cast<const bf16*>(g.bias)[col]);
    if (g.beta != 0) sum += to_float(out[i]);
    out[i] = from_float<T>(sum);
  }
}

// Exponents below the formats' upper halves: finite in both.
__global__ void __launch_bounds__(kThreads) codes_kernel(uint8_t* to, int64_t count, uint32_t seed) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
    uint32_t x = uint32_t(i) * 0x9E3779B9u + uint32_t(i >> 32) + seed * 0x85EBCA6Bu;
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    to[i] = uint8_t((x >> 24) & 0xBFu);
  }
}

}  // namespace

void gemm_fp8_plain(const Fp8Gemm& g, cudaStream_t stream) {
  const unsigned blocks = grid_for(g.m * g.n, kThreads);
  if (g.out_dtype == F32)
    plain_kernel<float><<<blocks, kThreads, 0, stream>>>(g);
  else
    plain_kernel<bf16><<<blocks, kThreads, 0, stream>>>(g);
}

void fill_codes(void* to, int64_t count, uint32_t seed, cudaStream_t stream) {
  codes_kernel<<<grid_for(count, kThreads), kThreads, 0, stream>>>(static_cast<uint8_t*>(to), count, seed);
}

}  // namespace ds
