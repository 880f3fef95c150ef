// Products of at most four rows by a weight stored [n, k]: one token's (or a few sequences') step of generation. Reading the weight
// once is the whole cost, so a warp streams whole rows of it and keeps its sums in registers. A lane adds its elements in order of k
// and the lanes meet in a fixed tree: an element depends on its row of A, its row of B and k alone, not on how many rows there are.
#include "../device.cuh"
#include "../gemm_parts.h"

namespace ds {

namespace {

constexpr int kMostRows = 4, kWarps = 4;

// Weights are read once: let them not push the activations out of L1.
template <class T> __device__ __forceinline__ Pack<T, kVector<T>> load_once(const T* from) {
  union { uint4 raw; Pack<T, kVector<T>> pack; } x = {__ldcs(reinterpret_cast<const uint4*>(from))};
  return x.pack;
}

template <class T, int M, int R, int U>
__device__ __forceinline__ void multiply(const T* x, int64_t ldx, const T* const (&rows)[R], int64_t i, float (&sum)[M][R]) {
  constexpr int V = kVector<T>, kStep = 32 * V;
  Pack<T, V> w[U][R];
#pragma unroll
  for (int u = 0; u < U; u++) {
#pragma unroll
    for (int r = 0; r < R; r++) w[u][r] = load_once(rows[r] + i + u * kStep);
  }
  if constexpr (U > 1) __syncwarp();  // all lanes are here; keeps the compiler from spreading the loads out among their uses
#pragma unroll
  for (int u = 0; u < U; u++) {
#pragma unroll
    for (int m = 0; m < M; m++) {
      float a[V];
      load<V>(x + m * ldx + i + u * kStep, a);
#pragma unroll
      for (int r = 0; r < R; r++) {
#pragma unroll
        for (int v = 0; v < V; v++) sum[m][r] = fmaf(a[v], to_float(w[u][r].v[v]), sum[m][r]);
      }
    }
  }
}

// R rows of the weight a warp: two share the conversions of x, where there is more than one row of it.
template <class T, class TC, int M, int R>
__global__ void __launch_bounds__(32 * kWarps)
    few_rows(const T* x, int64_t ldx, const T* w, int64_t ldw, TC* y, int64_t ldy, const T* bias, int64_t n, int64_t k, float alpha,
             float beta) {
  constexpr int V = kVector<T>, kUnroll = 8 / R, kStep = 32 * V;
  const int lane = threadIdx.x % 32;
  const int64_t j = (blockIdx.x * int64_t(kWarps) + threadIdx.x / 32) * R;
  if (j >= n) return;
  const T* rows[R];
#pragma unroll
  for (int r = 0; r < R; r++) rows[r] = w + (j + r < n ? j + r : j) * ldw;
  float sum[M][R];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int r = 0; r < R; r++) sum[m][r] = 0;
  }
  int64_t i = 0;
  for (; i + kUnroll * kStep <= k; i += kUnroll * kStep) multiply<T, M, R, kUnroll>(x, ldx, rows, i + lane * V, sum);
  for (i += lane * V; i < k; i += kStep) multiply<T, M, R, 1>(x, ldx, rows, i, sum);
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int r = 0; r < R; r++) {
      const float total = alpha * warp_reduce(sum[m][r], Sum());
      if (lane != 0 || j + r >= n) continue;
      TC* to = y + m * ldy + j + r;
      float base = beta == 0 ? 0.0f : beta * to_float(*to);
      if (bias) base += to_float(bias[j + r]);
      *to = from_float<TC>(base + total);
    }
  }
}

template <class T, class TC, int M> void launch(const Gemm& g, cudaStream_t stream) {
  constexpr int R = M == 1 ? 1 : 2;
  const T* bias = g.epilogue == Epilogue::kBias ? static_cast<const T*>(g.bias) : nullptr;
  few_rows<T, TC, M, R><<<unsigned((g.n + kWarps * R - 1) / (kWarps * R)), 32 * kWarps, 0, stream>>>(
      static_cast<const T*>(g.a), g.lda, static_cast<const T*>(g.b), g.ldb, static_cast<TC*>(g.c), g.ldc, bias, g.n, g.k, g.alpha, g.beta);
}

template <class T, class TC> void launch(const Gemm& g, cudaStream_t stream) {
  switch (g.m) {
    case 1: return launch<T, TC, 1>(g, stream);
    case 2: return launch<T, TC, 2>(g, stream);
    case 3: return launch<T, TC, 3>(g, stream);
    case 4: return launch<T, TC, 4>(g, stream);
  }
}

}  // namespace

bool gemm_few_rows(const Gemm& g, cudaStream_t stream) {
  const int64_t vector = 16 / kElementBytes[g.in_dtype];
  if (g.m > kMostRows || g.batch != 1 || g.transpose_a || !g.transpose_b || g.k == 0) return false;
  if (g.epilogue != Epilogue::kNone && g.epilogue != Epilogue::kBias) return false;
  if (g.k % vector || g.ldb % vector || (g.m > 1 && g.lda % vector) || !is_aligned(g.a, 16) || !is_aligned(g.b, 16)) return false;
  by_float(g.in_dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (g.out_dtype == F32)
      launch<T, float>(g, stream);
    else
      launch<T, T>(g, stream);
  });
  return true;
}

}  // namespace ds
