// Routing of tokens to experts and its gradient; see core/src/ops/route.ts. Assignments are sorted by expert with a stable sort, so those of
// an expert stay in order of tokens, whatever the device does at the same time.
#include <cub/device/device_radix_sort.cuh>

#include "../device.cuh"

namespace ds {
namespace {

constexpr int kMostExperts = 128, kThreads = 128;

// The k largest logits of a token, the largest first, of equal ones the first; where values are no numbers, any that are left. Their
// softmax are the token's weights.
template <class T>
__global__ void __launch_bounds__(kThreads) choose(const T* logits, float* weights, int32_t* chosen, int32_t* assignments, int tokens, int E, int k) {
  const int token = blockIdx.x * kThreads + threadIdx.x;
  if (token >= tokens) return;
  logits += int64_t(token) * E, weights += int64_t(token) * k, chosen += int64_t(token) * k;
  uint32_t taken[kMostExperts / 32] = {};
  float max = 0, sum = 0;
  for (int j = 0; j < k; j++) {
    int best = -1;
    float top = 0;
#pragma unroll
    for (int word = 0; word < kMostExperts / 32; word++)
      for (int e = word * 32; e < min(E, word * 32 + 32); e++) {
        if (taken[word] >> (e % 32) & 1) continue;
        const float v = to_float(logits[e]);
        if (best < 0 || v > top) best = e, top = v;
      }
#pragma unroll
    for (int word = 0; word < kMostExperts / 32; word++)
      if (best / 32 == word) taken[word] |= 1u << (best % 32);
    if (j == 0) max = top;
    const float share = expf(top - max);
    sum += share;
    weights[j] = share, chosen[j] = best;
    assignments[int64_t(token) * k + j] = token * k + j;
  }
  for (int j = 0; j < k; j++) weights[j] /= sum;
}

// From the sorted assignments and their experts: where each assignment is, and where each expert's begin.
__global__ void __launch_bounds__(kThreads) index_places(const int32_t* sorted, const int32_t* order, int32_t* place, int32_t* offsets, int n, int E) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= n) return;
  const int expert = sorted[at], before = at == 0 ? -1 : sorted[at - 1];
  place[order[at]] = at;
  for (int e = before + 1; e <= expert; e++) offsets[e] = at;
  if (at == n - 1)
    for (int e = expert + 1; e <= E; e++) offsets[e] = n;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    route_backward_kernel(const float* dweights, const float* weights, const int32_t* chosen, T* dlogits, int64_t n, int E, int k) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t token = i / E, first = token * k;
  const int expert = int(i - token * E);
  float dot = 0, mine = 0;
  int choice = -1;
  for (int j = 0; j < k; j++) {
    dot = fmaf(weights[first + j], dweights[first + j], dot);
    if (chosen[first + j] == expert) choice = j;
  }
  if (choice >= 0) mine = weights[first + choice] * (dweights[first + choice] - dot);
  dlogits[i] = from_float<T>(mine);
}

unsigned blocks_of(int64_t n) { return unsigned((n + kThreads - 1) / kThreads); }

}  // namespace

KERNEL(route, kFloats) {
  const View &logits = c.in[0], &weights = c.out[0], &chosen = c.out[1], &order = c.out[2], &place = c.out[3], &offsets = c.out[4];
  const int64_t tokens = logits.rows(), E = logits.cols(), k = int64_t(c.attrs[0]), n = tokens * k;
  if (E > kMostExperts || k > E || n >= int64_t(1) << 31)
    return error_text("route: at most %d experts, k = %lld of them for each of %lld tokens", kMostExperts, (long long)k, (long long)tokens);
  for (const View* v : {&chosen, &order, &place})
    if (v->numel != n || v->dtype != I32) return error_text("route: expected %lld assignments in i32", (long long)n);
  if (weights.numel != n || weights.dtype != F32 || offsets.numel != E + 1)
    return error_text("route: expected %lld weights in f32 and %lld offsets", (long long)n, (long long)(E + 1));
  if (n == 0) {
    const cudaError_t error = cudaMemsetAsync(offsets.data, 0, size_t(offsets.bytes()), c.stream);
    return error == cudaSuccess ? nullptr : cuda_error_text("route: zeroing of the offsets", error);
  }
  int bits = 1;
  while (E - 1 >> bits) bits++;
  const int64_t stride = (n + 63) / 64 * 64;
  int32_t* room = static_cast<int32_t*>(scratch(kScratchA, size_t(stride) * 2 * sizeof(int32_t)));
  if (!room) return kNoWorkspace;
  int32_t *assignments = room, *sorted = room + stride;
  size_t bytes = 0;
  const auto sort = [&](void* temporary) {
    return cub::DeviceRadixSort::SortPairs(temporary, bytes, chosen.as<const int32_t>(), sorted, static_cast<const int32_t*>(assignments),
                                           order.as<int32_t>(), int(n), 0, bits, c.stream);
  };
  cudaError_t error = sort(nullptr);
  if (error != cudaSuccess) return cuda_error_text("route: sorting of the assignments", error);
  void* temporary = scratch(kScratchC, bytes + 1);
  if (!temporary) return kNoWorkspace;
  by_float(logits.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    choose<<<blocks_of(tokens), kThreads, 0, c.stream>>>(logits.as<const T>(), weights.as<float>(), chosen.as<int32_t>(), assignments, int(tokens),
                                                         int(E), int(k));
  });
  error = sort(temporary);
  if (error != cudaSuccess) return cuda_error_text("route: sorting of the assignments", error);
  index_places<<<blocks_of(n), kThreads, 0, c.stream>>>(sorted, order.as<const int32_t>(), place.as<int32_t>(), offsets.as<int32_t>(), int(n), int(E));
  return nullptr;
}

KERNEL(route_backward, kFloats) {
  const View &dweights = c.in[0], &weights = c.in[1], &chosen = c.in[2], &dlogits = c.out[0];
  if (dweights.numel != weights.numel || chosen.numel != weights.numel || dlogits.rows() != weights.rows())
    return error_text("route_backward: the gradients, weights and experts chosen of %lld tokens do not fit together", (long long)dlogits.rows());
  if (dlogits.numel == 0) return nullptr;
  by_float(dlogits.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    route_backward_kernel<<<blocks_of(dlogits.numel), kThreads, 0, c.stream>>>(dweights.as<const float>(), weights.as<const float>(),
                                                                              chosen.as<const int32_t>(), dlogits.as<T>(), dlogits.numel,
                                                                              int(dlogits.cols()), int(weights.cols()));
  });
  return nullptr;
}

}  // namespace ds
