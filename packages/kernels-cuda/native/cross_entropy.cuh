// The loss of a language model's head over logits [rows, V] in memory: log-sum-exp and the gradient of each row, a block a row.
// Logits (of type L) and their gradient (of type T: in place where L is T) have a row stride that is a multiple of 16 bytes.
#pragma once
#include <type_traits>

#include "device.cuh"
#include "fault.cuh"

namespace ds {

// Threads a row: 1024 where a row is too long for two to share a multiprocessor's memory. By V alone, so that sums repeat anywhere.
constexpr int kHeadThreads = 512, kWideThreads = 1024;
constexpr int64_t kWideRow = 112 << 10;  // bytes
constexpr float kLog2E = 1.4426950408889634f;

static __device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
static __device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// What a row of logits says: its maximum, and the sum of e^(l - max).
struct RowSum {
  float max, sum;
};
// Maxima of -inf only (nothing seen yet, or masked): their terms are 0 with any finite shift.
static __device__ __forceinline__ float shift_of(float max) { return max == -infinity() ? 0.0f : max * kLog2E; }

// A row's packs as the block's threads take them: pack p belongs to thread p % blockDim.x, in every pass.
template <class T> struct HeadRow {
  static constexpr int N = kVector<T>;
  using P = Pack<T, N>;
  P* packs;
  P* held;     // shared memory for the first `n_held` packs, so that a second pass need not read them again
  int n_held;
  int V;
  __device__ int count() const { return (V + N - 1) / N; }
};

// The largest of a pack, two at a time where the hardware has it. NaNs are left to the sum.
template <class T, int N> static __device__ __forceinline__ float top_of(const Pack<T, N>& pack) {
  if constexpr (sizeof(T) == 2) {
    using T2 = std::conditional_t<std::is_same_v<T, bf16>, __nv_bfloat162, __half2>;
    T2 top(pack.v[0], pack.v[1]);
#pragma unroll
    for (int i = 2; i < N; i += 2) top = __hmax2(top, T2(pack.v[i], pack.v[i + 1]));
    return fmaxf(to_float(top.x), to_float(top.y));
  } else {
    float top = pack.v[0];
#pragma unroll
    for (int i = 1; i < N; i++) top = fmaxf(top, pack.v[i]);
    return top;
  }
}

// One read of the row. All threads get the result. `room` is shared memory for 32 floats.
template <int kThreads, bool kHold, class T> static __device__ __forceinline__ RowSum sum_row(const HeadRow<T>& row, float* room) {
  constexpr int N = kVector<T>, kAhead = 4;
  using P = Pack<T, N>;
  const int count = row.count();
  float max = -infinity(), sum = 0;
  for (int p = threadIdx.x; p < count; p += kThreads * kAhead) {
    P ahead[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int at = p + u * kThreads;
      if (at < count) {
        ahead[u] = row.packs[at];
      } else {
#pragma unroll
        for (int i = 0; i < N; i++) ahead[u].v[i] = from_float<T>(-infinity());
      }
    }
    float top = max;
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int at = p + u * kThreads;
      if (at == count - 1) {
#pragma unroll
        for (int i = 0; i < N; i++)
          if (at * N + i >= row.V) ahead[u].v[i] = from_float<T>(-infinity());
      }
      if (kHold && at < row.n_held) row.held[at] = ahead[u];
      top = fmaxf(top, top_of(ahead[u]));
    }
    const float shift = shift_of(top);
    sum *= exp2_fast(fmaf(max, kLog2E, -shift));
    max = top;
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      float part = 0;
#pragma unroll
      for (int i = 0; i < N; i++) part += exp2_fast(fmaf(to_float(ahead[u].v[i]), kLog2E, -shift));
      sum += part;
    }
  }
  const float top = block_reduce(max, -infinity(), room, Max{});
  sum *= exp2_fast(fmaf(max, kLog2E, -shift_of(top)));
  return {top, block_reduce(sum, 0.0f, room, Sum{})};
}

// out = (e^(l - lse) - onehot(label)) * scale, and where logits are capped times 1 - (l uncap)^2, the cap's derivative (uncap 0: they
// are not); the columns from V to the end of the last pack become 0.
template <int kThreads, bool kHold, class L, class T>
static __device__ __forceinline__ void row_gradient(const HeadRow<L>& row, T* out, float lse, int label, float scale, float uncap) {
  constexpr int N = kVector<L>, kAhead = 4;
  using P = Pack<L, N>;
  const int count = row.count();
  const float shift = lse * kLog2E;
  for (int p = threadIdx.x; p < count; p += kThreads * kAhead) {
    P ahead[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int at = p + u * kThreads;
      if (at < count) ahead[u] = kHold && at < row.n_held ? row.held[at] : row.packs[at];
    }
#pragma unroll
    for (int u = 0; u < kAhead; u++) {
      const int at = p + u * kThreads;
      if (at >= count) continue;
      float g[N];
#pragma unroll
      for (int i = 0; i < N; i++) g[i] = exp2_fast(fmaf(to_float(ahead[u].v[i]), kLog2E, -shift)) * scale;
      const int from = at * N;
      if (unsigned(label - from) < unsigned(N)) {
#pragma unroll
        for (int i = 0; i < N; i++)
          if (from + i == label) g[i] -= scale;
      }
      if (uncap > 0) {
#pragma unroll
        for (int i = 0; i < N; i++) {
          const float part = to_float(ahead[u].v[i]) * uncap;
          g[i] *= fmaf(-part, part, 1.0f);
        }
      }
      if (at == count - 1) {
#pragma unroll
        for (int i = 0; i < N; i++)
          if (from + i >= row.V) g[i] = 0;
      }
      store(out + from, g);
    }
  }
}

template <int kThreads, class L, class T> static __device__ __forceinline__ void clear_row(const HeadRow<L>& row, T* out) {
  const float zero[kVector<L>] = {};
  for (int p = threadIdx.x; p < row.count(); p += kThreads) store(out + p * kVector<L>, zero);
}

struct Labels {
  const int32_t* of;  // of all rows
  int32_t ignored;
  Fault* fault;
};
// The loss of a row from its sums; NaN and a fault where the label is none.
template <class T>
static __device__ __forceinline__ float row_loss(const T* logits, float lse, const Labels& labels, int64_t row, int V) {
  const int32_t label = labels.of[row];
  if (label == labels.ignored) return 0;
  if (label < 0 || label >= V) {
    device_fault(labels.fault, kFaultLabel, label, row, V);
    return __int_as_float(0x7fc00000);
  }
  return lse - to_float(logits[label]);
}

// Logits l become cap tanh(l / cap), in place.
template <class T> __global__ void __launch_bounds__(256) cap_logits(T* logits, int64_t packs, float cap) {
  constexpr int N = kVector<T>;
  const float inverse = 1 / cap;
  for (int64_t p = int64_t(blockIdx.x) * 256 + threadIdx.x; p < packs; p += int64_t(gridDim.x) * 256) {
    float x[N];
    load(logits + p * N, x);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = cap * tanhf(x[i] * inverse);
    store(logits + p * N, x);
  }
}

// ---- kernels: logits of rows first .. first + gridDim.x - 1 ------------------------------------------------
template <class T>
__global__ void __launch_bounds__(kHeadThreads, 2)
head_loss(T* logits, int64_t stride, int V, int64_t first, Labels labels, float* lse, float* losses) {
  __shared__ float room[32];
  T* l = logits + int64_t(blockIdx.x) * stride;
  const HeadRow<T> row = {reinterpret_cast<Pack<T, kVector<T>>*>(l), nullptr, 0, V};
  const RowSum s = sum_row<kHeadThreads, false>(row, room);
  if (threadIdx.x != 0) return;
  const int64_t at = first + blockIdx.x;
  const float value = s.max + logf(s.sum);
  lse[at] = value;
  losses[at] = row_loss(l, value, labels, at, V);
}

// `scale` is dloss / (labels that count), on the device.
template <class L, class T>
__global__ void __launch_bounds__(kHeadThreads, 2)
head_gradient(L* logits, T* gradient, int64_t stride, int V, int64_t first, Labels labels, const float* lse, const float* scale,
              float uncap) {
  const int64_t start = int64_t(blockIdx.x) * stride, at = first + blockIdx.x;
  const HeadRow<L> row = {reinterpret_cast<Pack<L, kVector<L>>*>(logits + start), nullptr, 0, V};
  const int label = labels.of[at];
  if (label == labels.ignored)
    clear_row<kHeadThreads>(row, gradient + start);
  else
    row_gradient<kHeadThreads, false>(row, gradient + start, lse[at], label, *scale, uncap);
}

// Loss and gradient at once, the gradient for a scale of 1. As much of a row as shared memory has room for (n_held packs) is read
// once; the rest of it is read again while it is in the L2 cache.
template <class L, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads)
head_loss_and_gradient(L* logits, T* gradient, int64_t stride, int V, int64_t first, Labels labels, float* losses, int n_held,
                       float uncap) {
  extern __shared__ uint4 held[];
  __shared__ float room[32];
  using P = Pack<L, kVector<L>>;
  const int64_t start = int64_t(blockIdx.x) * stride, at = first + blockIdx.x;
  const HeadRow<L> row = {reinterpret_cast<P*>(logits + start), reinterpret_cast<P*>(held), n_held, V};
  const int label = labels.of[at];
  if (label == labels.ignored) {
    if (threadIdx.x == 0) losses[at] = 0;
    return clear_row<kThreads>(row, gradient + start);
  }
  const RowSum s = sum_row<kThreads, true>(row, room);
  const float lse = s.max + logf(s.sum);
  if (threadIdx.x == 0) losses[at] = row_loss(logits + start, lse, labels, at, V);
  __syncthreads();  // the label's logit was read before its thread overwrites it
  row_gradient<kThreads, true>(row, gradient + start, lse, label, 1.0f, uncap);
}

// ---- over all rows: one block, a fixed order of additions ----------------------------------------------------
// How many labels count; all threads get it. `room` is shared memory for 32 values.
static __device__ __forceinline__ int count_labels(const Labels& labels, int64_t n, int* room) {
  int valid = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) valid += labels.of[i] != labels.ignored;
  return block_reduce(valid, 0, room, Sum{});
}
static __global__ void __launch_bounds__(1024) mean_loss(const float* losses, Labels labels, int64_t n, float* loss, float* valid_out) {
  __shared__ double room[32];
  __shared__ int count_room[32];
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += double(losses[i]);
  sum = block_reduce(sum, 0.0, room, Sum{});
  const int valid = count_labels(labels, n, count_room);
  if (threadIdx.x != 0) return;
  *loss = valid == 0 ? 0.0f : float(sum / valid);
  if (valid_out) *valid_out = float(valid);
}
static __global__ void __launch_bounds__(1024) gradient_scale(const float* dloss, Labels labels, int64_t n, float* scale) {
  __shared__ int room[32];
  const int valid = count_labels(labels, n, room);
  if (threadIdx.x == 0) *scale = valid == 0 ? 0.0f : *dloss / float(valid);
}

// to (+)= from * dloss / valid (no scaling where those are nullptr).
template <class F, class T, int N>
__global__ void __launch_bounds__(256)
add_gradient(const F* from, T* to, int64_t n, bool accumulate, const float* dloss, const float* valid) {
  const float scale = !dloss ? 1.0f : *valid > 0 ? *dloss / *valid : 0.0f;
  for (int64_t i = (int64_t(blockIdx.x) * 256 + threadIdx.x) * N; i < n; i += int64_t(gridDim.x) * 256 * N) {
    float x[N], old[N];
    load(from + i, x);
#pragma unroll
    for (int k = 0; k < N; k++) x[k] *= scale;
    if (accumulate) {
      load(to + i, old);
#pragma unroll
      for (int k = 0; k < N; k++) x[k] += old[k];
    }
    store(to + i, x);
  }
}

template <class F, class T>
static void add_gradients(const F* from, T* to, int64_t n, bool accumulate, const float* dloss, const float* valid, cudaStream_t stream) {
  constexpr int N = kVector<T>;
  if (n % N == 0 && is_aligned(from, N * sizeof(F)) && is_aligned(to, 16))
    add_gradient<F, T, N><<<grid_for(n, 256 * N), 256, 0, stream>>>(from, to, n, accumulate, dloss, valid);
  else
    add_gradient<F, T, 1><<<grid_for(n, 256), 256, 0, stream>>>(from, to, n, accumulate, dloss, valid);
}

}  // namespace ds
