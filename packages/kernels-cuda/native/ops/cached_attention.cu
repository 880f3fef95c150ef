// Attention of new tokens to a cache of keys and values [B, Hkv, capacity, D], which they are appended to: flash decoding (Dao et al. 2023).
// A block of threads takes kBlock keys of one key head, for up to R of the rows (tokens and query heads) that read it: keys and values are
// loaded once for the heads of a group. Blocks of keys count from the first that a token sees and are put together in order, so a row's bits
// do not depend on padding, other rows or the device. One new token's key and value are read from qkv and written to the cache by the
// block that reads them; more are appended first.
#include "../device.cuh"
#include "../flash/bend.cuh"

namespace ds {
namespace {

using flash::alibi_slope;
using flash::kLog2E;

constexpr int kThreads = 256, kWarps = kThreads / 32, kBlock = 256, kShare = kBlock / kWarps;

struct Shape {
  int batch, tokens, heads, kv_heads, head_dim, group, length, capacity, window, splits;
  float scale;         // in units of log2 e
  float cap;           // scores s are cap tanh(s / cap), likewise; 0: as they are
  bool alibi;
  bool fresh;          // the one new token is in qkv only
  const int* starts;

  __host__ __device__ int64_t token() const { return int64_t(heads + 2 * kv_heads) * head_dim; }
  __host__ __device__ int rows() const { return tokens * group; }  // of a key head: token by token the heads of its group
  // The slots [first, last] that token t of sequence b sees.
  __host__ __device__ int last(int t) const { return length + t; }
  __device__ int first(int b, int t) const {
    const int hidden = window > 0 ? last(t) + 1 - window : 0, start = starts[b];
    const int begin = max(max(start, hidden), 0);
    return min(begin, last(t));
  }
};

// How a key lies among the lanes of a warp: L of them hold it, each E elements in vectors of V.
template <class T, int D> struct Lanes {
  static constexpr int V = kVector<T>, L = D / V < 32 ? D / V : 32, E = D / L, kVectors = E / V, kKeys = 32 / L;
};

template <class T, bool aligned> __device__ __forceinline__ Pack<T, kVector<T>> load_part(const T* from, int column, int width) {
  constexpr int V = kVector<T>;
  Pack<T, V> pack = {};
  if constexpr (aligned) {
    if (column < width) pack = *reinterpret_cast<const Pack<T, V>*>(from + column);
  } else {
#pragma unroll
    for (int i = 0; i < V; i++)
      if (column + i < width) pack.v[i] = from[column + i];
  }
  return pack;
}

template <class T, bool aligned> __device__ __forceinline__ void store_part(T* to, int column, int width, const Pack<T, kVector<T>>& pack) {
  constexpr int V = kVector<T>;
  if constexpr (aligned) {
    if (column < width) *reinterpret_cast<Pack<T, V>*>(to + column) = pack;
  } else {
#pragma unroll
    for (int i = 0; i < V; i++)
      if (column + i < width) to[column + i] = pack.v[i];
  }
}

// Grid: blocks of keys, key heads x tiles of rows, sequences. `partial` [batch][tokens][heads][splits][2 + head_dim]: maximum, sum and sums of
// values of each block, where there are several; else y is written.
template <class T, int D, int R, bool aligned>
__global__ void __launch_bounds__(kThreads) attend(const Shape s, const T* qkv, T* keys, T* values, T* y, float* partial) {
  using Lay = Lanes<T, D>;
  constexpr int V = Lay::V, L = Lay::L, E = Lay::E, N = Lay::kVectors, K = Lay::kKeys, U = kShare / K < 4 ? kShare / K : 4;
  __shared__ float sums[kWarps][R][2 + D];
  const int split = blockIdx.x, kv = blockIdx.y % s.kv_heads, row0 = int(blockIdx.y / s.kv_heads) * R, b = blockIdx.z;
  const int rows = min(R, s.rows() - row0), t0 = row0 / s.group, t1 = (row0 + rows - 1) / s.group;
  const int begin = s.first(b, t0) + split * kBlock, end = min(begin + kBlock, s.last(t1) + 1);
  if (begin >= end) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sub = lane / L;
  const T* sequence = qkv + int64_t(b) * s.tokens * s.token();
  const int64_t head = (int64_t(b) * s.kv_heads + kv) * s.capacity * s.head_dim;

  float q[R][E], out[R][E], top[R], sum[R], fall[R];
  int first[R], last[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int row = row0 + (r < rows ? r : 0), t = row / s.group, h = kv * s.group + row % s.group;
    first[r] = s.first(b, t), last[r] = r < rows ? s.last(t) : -1;
    top[r] = -INFINITY, sum[r] = 0, fall[r] = s.alibi ? alibi_slope(h, s.heads) * kLog2E : 0.f;
#pragma unroll
    for (int n = 0; n < N; n++) {
      const Pack<T, V> pack = load_part<T, aligned>(sequence + t * s.token() + int64_t(h) * s.head_dim, (n * L + lane % L) * V, s.head_dim);
#pragma unroll
      for (int i = 0; i < V; i++) q[r][n * V + i] = to_float(pack.v[i]) * s.scale, out[r][n * V + i] = 0;
    }
  }

  for (int round = 0; round < kShare / (K * U); round++) {
    const int base = begin + warp * kShare + round * K * U;
    if (base >= end) break;
    Pack<T, V> k[U][N], v[U][N];
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int j = base + u * K + sub;
      const bool here = j < end, fresh = s.fresh && j == s.length;
      const int64_t new_key = int64_t(s.heads + kv) * s.head_dim, slot = head + int64_t(j) * s.head_dim;
      const T* key = fresh ? sequence + new_key : keys + slot;
      const T* value = fresh ? sequence + new_key + int64_t(s.kv_heads) * s.head_dim : values + slot;
#pragma unroll
      for (int n = 0; n < N; n++) {
        const int column = (n * L + lane % L) * V;
        k[u][n] = load_part<T, aligned>(key, column, here ? s.head_dim : 0);
        v[u][n] = load_part<T, aligned>(value, column, here ? s.head_dim : 0);
        if (fresh && here && row0 == 0) {
          store_part<T, aligned>(keys + slot, column, s.head_dim, k[u][n]);
          store_part<T, aligned>(values + slot, column, s.head_dim, v[u][n]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      float score[U], high = top[r];
#pragma unroll
      for (int u = 0; u < U; u++) {
        float dot = 0;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < V; i++) dot = fmaf(q[r][n * V + i], to_float(k[u][n].v[i]), dot);
#pragma unroll
        for (int offset = L / 2; offset > 0; offset /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, offset);
        const int j = base + u * K + sub;
        if (s.cap > 0) dot = s.cap * tanhf(dot / s.cap);
        if (s.alibi) dot = fmaf(float(j - last[r]), fall[r], dot);
        score[u] = j >= first[r] && j <= last[r] && j < end ? dot : -INFINITY;
        high = fmaxf(high, score[u]);
      }
      const float shift = high == -INFINITY ? 0.f : high, shrink = exp2f(top[r] - shift);
      top[r] = high;
      sum[r] *= shrink;
#pragma unroll
      for (int e = 0; e < E; e++) out[r][e] *= shrink;
#pragma unroll
      for (int u = 0; u < U; u++) {
        const float weight = exp2f(score[u] - shift);
        sum[r] += weight;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
          for (int i = 0; i < V; i++) out[r][n * V + i] = fmaf(weight, to_float(v[u][n].v[i]), out[r][n * V + i]);
      }
    }
  }

  // The keys of a warp, then the warps, in a fixed order.
#pragma unroll
  for (int r = 0; r < R; r++) {
#pragma unroll
    for (int offset = L; offset < 32; offset *= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, top[r], offset), more = __shfl_xor_sync(0xffffffffu, sum[r], offset);
      const float high = fmaxf(top[r], other), shift = high == -INFINITY ? 0.f : high;
      const float mine = exp2f(top[r] - shift), theirs = exp2f(other - shift);
      top[r] = high;
      sum[r] = sum[r] * mine + more * theirs;
#pragma unroll
      for (int e = 0; e < E; e++) out[r][e] = out[r][e] * mine + __shfl_xor_sync(0xffffffffu, out[r][e], offset) * theirs;
    }
    if (sub != 0) continue;
    if (lane == 0) sums[warp][r][0] = top[r], sums[warp][r][1] = sum[r];
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int i = 0; i < V; i++) sums[warp][r][2 + (n * L + lane) * V + i] = out[r][n * V + i];
  }
  __syncthreads();
  for (int at = threadIdx.x; at < rows * D; at += kThreads) {
    const int r = at / D, column = at % D;
    if (column >= s.head_dim) continue;
    float high = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; w++) high = fmaxf(high, sums[w][r][0]);
    const float shift = high == -INFINITY ? 0.f : high;
    float total = 0, result = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) {
      const float weight = exp2f(sums[w][r][0] - shift);
      total = fmaf(sums[w][r][1], weight, total);
      result = fmaf(sums[w][r][2 + column], weight, result);
    }
    const int row = row0 + r, t = row / s.group, h = kv * s.group + row % s.group;
    const int64_t place = (int64_t(b) * s.tokens + t) * s.heads + h;
    if (s.splits == 1) {
      y[place * s.head_dim + column] = from_float<T>(result / total);
    } else {
      float* to = partial + (place * s.splits + split) * (2 + s.head_dim);
      if (column == 0) to[0] = high, to[1] = total;
      to[2 + column] = result;
    }
  }
}

// Puts the blocks of a row together. `tile`: how many rows of a key head shared a block of threads, and so where their blocks begin.
template <class T> __global__ void __launch_bounds__(128) combine(const Shape s, int tile, const float* partial, T* y) {
  const int t = blockIdx.x / s.heads, h = blockIdx.x % s.heads, b = blockIdx.y;
  const int row = t * s.group + h % s.group, t0 = row / tile * tile / s.group;
  const int blocks = (s.last(t) - s.first(b, t0)) / kBlock + 1;
  const int64_t place = (int64_t(b) * s.tokens + t) * s.heads + h, stride = 2 + s.head_dim;
  const float* from = partial + place * s.splits * stride;
  float high = -INFINITY;
  for (int i = 0; i < blocks; i++) high = fmaxf(high, from[i * stride]);
  for (int column = threadIdx.x; column < s.head_dim; column += 128) {
    float total = 0, result = 0;
    for (int i = 0; i < blocks; i++) {
      const float weight = exp2f(from[i * stride] - high);
      total = fmaf(from[i * stride + 1], weight, total);
      result = fmaf(from[i * stride + 2 + column], weight, result);
    }
    y[place * s.head_dim + column] = from_float<T>(result / total);
  }
}

// Keys and values of new tokens to their slots, in units of U. An item is a unit of a key or a value.
template <class U>
__global__ void __launch_bounds__(256) append(const Shape s, int64_t items, int repeats, int units, const U* qkv, U* keys, U* values) {
  for (int64_t item = int64_t(blockIdx.x) * 256 + threadIdx.x; item < items; item += int64_t(gridDim.x) * 256) {
    int64_t rest = item;
    const int unit = int(rest % units);
    const int kind = int((rest /= units) % 2);
    const int kv = int((rest /= 2) % s.kv_heads);
    const int t = int((rest /= s.kv_heads) % s.tokens);
    const int64_t sequence = rest / s.tokens;
    const int64_t head = s.heads + kind * s.kv_heads + kv, token = sequence / repeats * s.tokens + t;
    const U value = qkv[(token * (s.heads + 2 * s.kv_heads) + head) * units + unit];
    (kind == 0 ? keys : values)[((sequence * s.kv_heads + kv) * s.capacity + s.length + t) * units + unit] = value;
  }
}

const char* read_cache(const char* op, const Call& c, const View& keys, const View& values, Shape& s) {
  const View& qkv = c.in[0];
  const int64_t heads = int64_t(c.attrs[0]), kv_heads = int64_t(c.attrs[1]), head_dim = int64_t(c.attrs[2]), length = int64_t(c.attrs[3]);
  if (kv_heads <= 0 || heads % kv_heads != 0 || (heads + 2 * kv_heads) * head_dim != qkv.dims[2])
    return error_text("%s: %lld query and %lld key/value heads of %lld do not make up rows of %lld", op, (long long)heads, (long long)kv_heads,
                      (long long)head_dim, (long long)qkv.dims[2]);
  const int64_t batch = qkv.dims[0], tokens = qkv.dims[1], capacity = keys.rank == 4 ? keys.dims[2] : 0;
  const bool fits = keys.rank == 4 && keys.dims[1] == kv_heads && keys.dims[3] == head_dim && keys.dtype == qkv.dtype &&
                    values.numel == keys.numel && values.dtype == keys.dtype;
  if (!fits || batch == 0 || keys.dims[0] % batch != 0 || length < 0 || length + tokens > capacity || capacity > INT32_MAX - 2 * kBlock)
    return error_text("%s: %lld tokens after %lld do not fit into a cache of %lld sequences with %lld slots", op, (long long)tokens,
                      (long long)length, (long long)keys.dims[0], (long long)capacity);
  s.batch = int(batch), s.tokens = int(tokens), s.heads = int(heads), s.kv_heads = int(kv_heads), s.head_dim = int(head_dim);
  s.group = int(heads / kv_heads), s.length = int(length), s.capacity = int(capacity);
  return nullptr;
}

void append_all(const Call& c, const Shape& s, const View& keys, const View& values) {
  const View& qkv = c.in[0];
  const int64_t bytes = s.head_dim * kElementBytes[qkv.dtype], sequences = keys.dims[0];
  const bool wide = bytes % 16 == 0 && is_aligned(qkv.data, 16) && is_aligned(keys.data, 16) && is_aligned(values.data, 16);
  const auto run = [&](auto tag) {
    using U = typename decltype(tag)::type;
    const int units = int(bytes / int64_t(sizeof(U)));
    const int64_t items = sequences * s.tokens * s.kv_heads * 2 * units;
    append<U><<<grid_for(items, 256, 32), 256, 0, c.stream>>>(s, items, int(sequences / s.batch), units, qkv.as<const U>(), keys.as<U>(),
                                                             values.as<U>());
  };
  if (wide) run(Tag<uint4>{});
  else if (bytes % 4 == 0 && qkv.dtype == F32) run(Tag<float>{});
  else run(Tag<uint16_t>{});
}

template <class T, int D, int R, bool aligned> const char* run(const Call& c, Shape s) {
  const int tiles = (s.rows() + R - 1) / R;
  int64_t most = s.length + s.tokens;  // keys that a tile sees
  if (s.window > 0 && s.window + (R - 1) / s.group + 1 < most) most = s.window + (R - 1) / s.group + 1;
  s.splits = int((most + kBlock - 1) / kBlock);
  float* partial = nullptr;
  if (s.splits > 1) {
    const size_t bytes = size_t(s.batch) * s.tokens * s.heads * s.splits * (2 + s.head_dim) * sizeof(float);
    partial = static_cast<float*>(scratch(kScratchAttention, bytes));
    if (partial == nullptr) return kNoWorkspace;
  }
  const int64_t across = int64_t(s.kv_heads) * tiles;
  if (across > 65535 || s.batch > 65535)
    return error_text("cached_attention: %d sequences with %lld tiles of rows are more than a launch takes", s.batch, (long long)across);
  attend<T, D, R, aligned><<<dim3(unsigned(s.splits), unsigned(across), unsigned(s.batch)), kThreads, 0, c.stream>>>(
      s, c.in[0].as<const T>(), c.out[1].as<T>(), c.out[2].as<T>(), c.out[0].as<T>(), partial);
  if (s.splits > 1)
    combine<T><<<dim3(unsigned(s.tokens * s.heads), unsigned(s.batch)), 128, 0, c.stream>>>(s, R, partial, c.out[0].as<T>());
  return nullptr;
}

template <class T, int D> const char* by_rows(const Call& c, const Shape& s) {
  const bool aligned = s.head_dim % kVector<T> == 0 && is_aligned(c.in[0].data, 16) && is_aligned(c.out[1].data, 16) && is_aligned(c.out[2].data, 16);
  if (!aligned) return run<T, D, 4, false>(c, s);
  if (s.rows() == 1) return run<T, D, 1, true>(c, s);
  if (s.rows() == 2) return run<T, D, 2, true>(c, s);
  if constexpr (D < 256) {
    if (s.rows() > 4) return run<T, D, 8, true>(c, s);
  }
  return run<T, D, 4, true>(c, s);
}

}  // namespace

KERNEL(cache_append, kFloats) {
  Shape s = {};
  if (const char* error = read_cache("cache_append", c, c.out[0], c.out[1], s)) return error;
  append_all(c, s, c.out[0], c.out[1]);
  return nullptr;
}

KERNEL(cached_attention, kFloats) {
  Shape s = {};
  const View &qkv = c.in[0], &starts = c.in[1], &keys = c.out[1], &values = c.out[2];
  if (const char* error = read_cache("cached_attention", c, keys, values, s)) return error;
  if (starts.dtype != I32 || starts.numel != s.batch || keys.dims[0] != s.batch)
    return error_text("cached_attention: %d rows with starts i32[%d] and as many sequences in the cache, got %lld and %lld", s.batch, s.batch,
                      (long long)starts.numel, (long long)keys.dims[0]);
  if (s.head_dim > 256) return error_text("cached_attention: head_dim is at most 256, got %d", s.head_dim);
  s.starts = starts.as<const int>(), s.scale = float(c.attrs[4]) * kLog2E;
  s.window = c.attrs[5] < s.length + s.tokens ? int(c.attrs[5]) : 0;
  s.cap = c.n_attrs > 6 ? float(c.attrs[6]) * kLog2E : 0.f, s.alibi = c.n_attrs > 7 && c.attrs[7] != 0;
  s.fresh = s.tokens == 1;
  if (!s.fresh) append_all(c, s, keys, values);
  const char* error = nullptr;
  by_float(qkv.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    error = s.head_dim <= 32    ? by_rows<T, 32>(c, s)
            : s.head_dim <= 64  ? by_rows<T, 64>(c, s)
            : s.head_dim <= 128 ? by_rows<T, 128>(c, s)
                                : by_rows<T, 256>(c, s);
  });
  return error;
}

}  // namespace ds
