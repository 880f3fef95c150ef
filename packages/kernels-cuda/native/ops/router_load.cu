// How evenly a router spreads its tokens, and the auxiliary loss of it; see core/src/ops/router-load.ts. A warp takes a token; a block's
// warps add their tokens' probabilities one after the other, and a second kernel adds the blocks' sums in order.
#include "../device.cuh"

namespace ds {
namespace {

constexpr int kMostExperts = 128, kEach = kMostExperts / 32, kWarps = 8, kTokens = 256;

// The probabilities of experts lane, lane + 32, .. of a row; zero beyond E.
template <class T> __device__ __forceinline__ void probabilities(const T* row, int E, int lane, float (&p)[kEach]) {
  float max = -INFINITY, sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const int e = lane + i * 32;
    p[i] = e < E ? to_float(row[e]) : -INFINITY;
    max = fmaxf(max, p[i]);
  }
  max = warp_reduce(max, Max());
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    p[i] = lane + i * 32 < E ? expf(p[i] - max) : 0.0f;
    sum += p[i];
  }
  sum = warp_reduce(sum, Sum());
#pragma unroll
  for (int i = 0; i < kEach; i++) p[i] /= sum;
}

template <class T> __global__ void __launch_bounds__(32 * kWarps) sum_probabilities(const T* logits, float* sums, int64_t tokens, int E) {
  __shared__ float of_warp[kWarps][kMostExperts];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = int64_t(blockIdx.x) * kTokens;
  float sum[kEach] = {}, p[kEach];
  for (int64_t token = first + warp; token < tokens && token < first + kTokens; token += kWarps) {
    probabilities(logits + token * E, E, lane, p);
#pragma unroll
    for (int i = 0; i < kEach; i++) sum[i] += p[i];
  }
#pragma unroll
  for (int i = 0; i < kEach; i++) of_warp[warp][lane + i * 32] = sum[i];
  __syncthreads();
  const int e = threadIdx.x;
  if (e >= E) return;
  float total = 0;
  for (int w = 0; w < kWarps; w++) total += of_warp[w][e];
  sums[int64_t(blockIdx.x) * E + e] = total;
}

__global__ void __launch_bounds__(kMostExperts) add_sums(const float* sums, const int32_t* offsets, float* load, int blocks, int E) {
  const int e = threadIdx.x;
  if (e >= E) return;
  float total = 0;
#pragma unroll 8
  for (int block = 0; block < blocks; block++) total += sums[int64_t(block) * E + e];
  load[e] = float(offsets[e + 1] - offsets[e]);
  load[E + e] = total;
}

template <class T>
__global__ void __launch_bounds__(32 * kWarps) load_backward(const float* upstream, const T* logits, T* dlogits, int64_t tokens, int E) {
  const int lane = threadIdx.x % 32;
  const int64_t token = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (token >= tokens) return;
  float p[kEach], dot = 0;
  probabilities(logits + token * E, E, lane, p);
#pragma unroll
  for (int i = 0; i < kEach; i++)
    if (const int e = lane + i * 32; e < E) dot = fmaf(p[i], upstream[e], dot);
  dot = warp_reduce(dot, Sum());
#pragma unroll
  for (int i = 0; i < kEach; i++)
    if (const int e = lane + i * 32; e < E) dlogits[token * E + e] = from_float<T>(p[i] * (upstream[e] - dot));
}

__global__ void __launch_bounds__(32) balance(const float* load, float* loss, double factor, int E) {
  double sum = 0;
  for (int e = threadIdx.x; e < E; e += 32) sum += double(load[e]) * double(load[E + e]);
  sum = warp_reduce(sum, Sum());
  if (threadIdx.x == 0) *loss = float(factor * sum);
}

__global__ void __launch_bounds__(kMostExperts) balance_backward(const float* dloss, const float* load, float* dload, double factor, int E) {
  const float scaled = float(double(*dloss) * factor);
  for (int e = threadIdx.x; e < E; e += kMostExperts) {
    const float count = load[e], probability = load[E + e];
    dload[e] = scaled * probability, dload[E + e] = scaled * count;
  }
}

double balance_factor(const View& load, double tokens) { return double(load.cols()) / (tokens * tokens); }

}  // namespace

KERNEL(router_load, kFloats) {
  const View &logits = c.in[0], &offsets = c.in[1], &load = c.out[0];
  const int64_t tokens = logits.rows(), E = logits.cols(), blocks = (tokens + kTokens - 1) / kTokens;
  if (E > kMostExperts || offsets.numel != E + 1 || load.numel != 2 * E || load.dtype != F32)
    return error_text("router_load: expected a load [2, %lld] and %lld offsets, of at most %d experts", (long long)E, (long long)(E + 1), kMostExperts);
  float* sums = static_cast<float*>(scratch(kScratchA, size_t(blocks * E + 1) * sizeof(float)));
  if (!sums) return kNoWorkspace;
  if (blocks > 0)
    by_float(logits.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      sum_probabilities<<<unsigned(blocks), 32 * kWarps, 0, c.stream>>>(logits.as<const T>(), sums, tokens, int(E));
    });
  add_sums<<<1, kMostExperts, 0, c.stream>>>(sums, offsets.as<const int32_t>(), load.as<float>(), int(blocks), int(E));
  return nullptr;
}

KERNEL(router_load_backward, kFloats) {
  const View &dload = c.in[0], &logits = c.in[1], &dlogits = c.out[0];
  const int64_t tokens = logits.rows(), E = logits.cols();
  if (E > kMostExperts || dload.numel != 2 * E || dlogits.numel != logits.numel || dlogits.dtype != logits.dtype)
    return error_text("router_load_backward: expected a gradient [2, %lld] and dlogits like logits, of at most %d experts", (long long)E, kMostExperts);
  if (tokens == 0) return nullptr;
  by_float(logits.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    load_backward<<<unsigned((tokens + kWarps - 1) / kWarps), 32 * kWarps, 0, c.stream>>>(dload.as<const float>() + E, logits.as<const T>(),
                                                                                        dlogits.as<T>(), tokens, int(E));
  });
  return nullptr;
}

KERNEL(load_balance, dtype_bit(F32)) {
  const View& load = c.in[0];
  balance<<<1, 32, 0, c.stream>>>(load.as<const float>(), c.out[0].as<float>(), balance_factor(load, c.attrs[0]), int(load.cols()));
  return nullptr;
}

KERNEL(load_balance_backward, dtype_bit(F32)) {
  const View& load = c.in[1];
  balance_backward<<<1, kMostExperts, 0, c.stream>>>(c.in[0].as<const float>(), load.as<const float>(), c.out[0].as<float>(),
                                                     balance_factor(load, c.attrs[0]), int(load.cols()));
  return nullptr;
}

}  // namespace ds
