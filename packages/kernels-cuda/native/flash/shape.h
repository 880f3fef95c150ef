// What the attention kernels share: the shapes of a call, and how a kernel is launched with the shared memory it wants.
//
// Packed qkv [batch, tokens, (heads + 2 kv_heads) head_dim]: per token the query heads, then the key heads, then the value
// heads; query head h reads key head h / group. A query i sees key j when (not causal or j <= i) and (window == 0 or
// j > i - window) and (no positions or j >= i - positions[i], the start of its document).
#pragma once
#include "fault.cuh"
#include "kernel.h"
#include "philox.cuh"

namespace ds {
namespace flash {

constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

struct Shape {
  int batch, tokens, heads, kv_heads, head_dim, group;
  int causal, window;
  float scale;
  // Dropout of probabilities; dropped == 0: none. An element of random word w stays, times `keep`, iff (w >> 8) >= dropped.
  uint32_t dropped;
  float keep;
  PhiloxKey key;
  // Scores s become softcap tanh(s / softcap), 0: they stay; with alibi they then gain slope(h) (j - i).
  float softcap;
  int alibi;
  __host__ __device__ bool bent() const { return softcap > 0 || alibi != 0; }
  // [batch, tokens]: where each token stands in its document, from 0 on; null: a row is one document.
  const int* positions;
  Fault* fault;

  __host__ __device__ int64_t token() const { return int64_t(heads + 2 * kv_heads) * head_dim; }
  __host__ __device__ int64_t wide() const { return int64_t(heads) * head_dim; }
  // Offsets within a token of qkv.
  __host__ __device__ int64_t key_at(int kv) const { return int64_t(heads + kv) * head_dim; }
  __host__ __device__ int64_t value_at(int kv) const { return int64_t(heads + kv_heads + kv) * head_dim; }
  // Rows of statistics are padded, so that a block may read past the last token.
  __host__ __device__ int padded() const { return (tokens + 127) / 128 * 128; }
  // Where the document of query i starts, in its row; whatever positions hold, within the row.
  __device__ int document(int b, int i) const {
    if (positions == nullptr) return 0;
    const int last = i < tokens ? i : tokens - 1, start = last - positions[int64_t(b) * tokens + last];
    return start < 0 ? 0 : start < last ? start : last;
  }
  // The first key that query i sees: it never decreases from query to query.
  __device__ int first_key(int b, int i) const {
    const int start = document(b, i), windowed = i - window + 1;
    return window > 0 && windowed > start ? windowed : start;
  }
  __device__ bool sees(int i, int j, int first) const { return j < tokens && (!causal || j <= i) && j >= first; }
  // Past the last of the keys that queries [i, i + n) see; the queries that see keys [j, j + n), from the first to past the last.
  __device__ int last_key(int i, int n) const { return causal && i + n < tokens ? i + n : tokens; }
  __device__ int first_query(int j) const { return causal ? j : 0; }
  __device__ int last_query(int b, int j, int n) const {
    const int key = j + n - 1, end = window == 0 || tokens - window < key ? tokens : key + window;
    return positions == nullptr ? end : first_after(b, key, end);
  }
  // The first query before `end` whose document starts past `key`, else `end`. Whole warps call it: 32 probes at a time.
  __device__ int first_after(int b, int key, int end) const {
    const int lane = threadIdx.x % 32;
    int low = key + 1 < end ? key + 1 : end, high = end;
    while (low < high) {
      const int step = (high - low + 31) / 32, probe = low + lane * step;
      const unsigned past = __ballot_sync(0xffffffffu, probe >= high || document(b, probe) > key);
      const int first = past == 0 ? 32 : __ffs(int(past)) - 1;
      if (first == 0) return low;
      const int last = low + first * step;
      low += (first - 1) * step + 1;
      if (last < high) high = last;
    }
    return low;
  }
  // Reports positions of queries [i, i + n) that do not start at 0 in a row, or grow by more than one.
  __device__ void check_positions(int b, int i, int n) const {
    if (positions == nullptr) return;
    for (int at = i + int(threadIdx.x); at < i + n && at < tokens; at += int(blockDim.x)) {
      const int64_t token = int64_t(b) * tokens + at;
      const int position = positions[token], most = at == 0 ? 0 : positions[token - 1] + 1;
      if (position < 0 || position > most) device_fault(fault, kFaultDocument, position, token, most);
    }
  }
};

// The keys that query i sees among those from j0 on, counted from j0: first <= key - j0 < last.
__device__ __forceinline__ int first_seen(const Shape& s, int b, int i, int j0) { return s.first_key(b, i) - j0; }
template <bool causal> __device__ __forceinline__ int last_seen(const Shape& s, int i, int j0) {
  return (causal && i + 1 < s.tokens ? i + 1 : s.tokens) - j0;
}

inline int parts(int n, int size) { return (n + size - 1) / size; }

// Per row of scores, padded() rows for each (batch, head): lse * log2 e (+infinity past the last token, so that a probability
// made from it is 0) and delta = dy . y (0 there).
struct Statistics {
  float *lse, *delta;
};

// Launches `kernel` with `bytes` of dynamic shared memory, opting in where that is more than 48 KB.
template <class... Parameters, class... Arguments>
const char* start(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t bytes, cudaStream_t stream, Arguments... arguments) {
  if (blocks > 0x7fffffff) return error_text("attention: %lld blocks of work are more than a launch takes", (long long)blocks);
  if (bytes > 48 * 1024) {
    const auto error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
    if (error != cudaSuccess) return cuda_error_text("attention's shared memory", error);
  }
  kernel<<<unsigned(blocks), threads, bytes, stream>>>(arguments...);
  return nullptr;
}

// Through tensor cores: head_dim 64, 96, 128 or 256, no dropout, 16-byte aligned tensors, a positive scale.
template <class T> const char* forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream);
template <class T>
const char* backward(const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream);

// Likewise, for scores that are capped or fall with distance; causal alone.
template <class T> const char* bent_forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream);
template <class T>
const char* bent_backward(const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream);

// In f32 arithmetic without tensor cores: every head_dim up to kMostPlain, dropout, any alignment.
constexpr int kMostPlain = 256;
template <class T> const char* plain_forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream);
template <class T>
const char* plain_backward(const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream);

// Fills `rows` for backward.
template <class T>
const char* statistics(const Shape& s, const T* dy, const T* y, const float* lse, const Statistics& rows, cudaStream_t stream);

}  // namespace flash
}  // namespace ds
