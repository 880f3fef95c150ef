// The product that asks nothing of its operands: where cuBLASLt has no algorithm (odd alignments of half types) or nothing to do
// (k = 0). One thread an element, a chain of fused multiply-adds over k.
#include "../device.cuh"
#include "../gemm_parts.h"

namespace ds {

namespace {

struct Strides {
  int64_t a_row, a_k, b_k, b_col, batch_a, batch_b, batch_c, ldc;
};

template <class T, class TC>
__global__ void plain(const T* a, const T* b, TC* c, int64_t m, int64_t n, int64_t k, Strides s, float alpha, float beta) {
  const int64_t j = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (j >= n) return;
  a += blockIdx.z * s.batch_a, b += blockIdx.z * s.batch_b + j * s.b_col, c += blockIdx.z * s.batch_c + j;
  for (int64_t i = blockIdx.y * int64_t(blockDim.y) + threadIdx.y; i < m; i += int64_t(gridDim.y) * blockDim.y) {
    const T* row = a + i * s.a_row;
    float sum = 0;
    for (int64_t l = 0; l < k; l++) sum = fmaf(to_float(row[l * s.a_k]), to_float(b[l * s.b_k]), sum);
    TC* to = c + i * s.ldc;
    // beta = 0 must not read: C may hold anything.
    *to = from_float<TC>(beta == 0 ? alpha * sum : fmaf(beta, to_float(*to), alpha * sum));
  }
}

template <class T, class TC> void launch(const Gemm& g, cudaStream_t stream) {
  constexpr int64_t kMostBatch = 65535;
  const Strides s = {g.transpose_a ? 1 : g.lda, g.transpose_a ? g.lda : 1, g.transpose_b ? 1 : g.ldb, g.transpose_b ? g.ldb : 1,
                     g.stride_a,                g.stride_b,                g.stride_c,                g.ldc};
  const dim3 block(32, 8);
  const int64_t row_blocks = (g.m + 7) / 8;
  for (int64_t first = 0; first < g.batch; first += kMostBatch) {
    const int64_t count = g.batch - first < kMostBatch ? g.batch - first : kMostBatch;
    const dim3 grid(unsigned((g.n + 31) / 32), unsigned(row_blocks < 65535 ? row_blocks : 65535), unsigned(count));
    const T* a = static_cast<const T*>(g.a) + first * g.stride_a;
    const T* b = static_cast<const T*>(g.b) + first * g.stride_b;
    TC* c = static_cast<TC*>(g.c) + first * g.stride_c;
    plain<T, TC><<<grid, block, 0, stream>>>(a, b, c, g.m, g.n, g.k, s, g.alpha, g.beta);
  }
}

}  // namespace

void gemm_plain(const Gemm& g, cudaStream_t stream) {
  by_float(g.in_dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (g.out_dtype == F32)
      launch<T, float>(g, stream);
    else
      launch<T, T>(g, stream);
  });
}

}  // namespace ds
