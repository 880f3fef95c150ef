// Attention of new tokens to a cache of keys and values [B, Hkv, capacity, D], which they are appended to. Query heads of a group
// share the passes over their keys. Keys come in blocks of kBlock counted from the first that a token sees, each with its own maximum
// and sum; blocks are put together in order. So a row's bits depend neither on threads nor on padding nor on other rows, and threads
// share the blocks of a row where there are few rows.
#include "../bend.h"
#include "../lanes.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kBlock = 256;
constexpr int64_t kCacheGrain = 16384;  // bytes that a task of appending copies, about

struct Cached : Bend {
  int64_t batch, tokens, heads, kv_heads, d, length, capacity, window;
  float scale;  // in units of log2 e
  const int32_t* starts;
  int64_t group() const { return heads / kv_heads; }
  int64_t token() const { return (heads + 2 * kv_heads) * d; }
  int64_t row() const { return (d + 15) / 16 * 16; }
  int64_t partial() const { return group() * (2 + row()); }  // of a block: by head the maximum and the sum, then the sums of values
  // The slots [first, last] that token t of sequence b sees.
  int64_t last(int64_t t) const { return length + t; }
  int64_t first(int64_t b, int64_t t) const {
    const int64_t hidden = window > 0 && last(t) + 1 > window ? last(t) + 1 - window : 0;
    const int64_t begin = starts[b] > hidden ? starts[b] : hidden;
    return begin < last(t) ? begin : last(t);
  }
};

static const char* read_cache(const char* op, const Call& c, const View& keys, const View& values, Cached& s) {
  const View& qkv = c.in[0];
  s.batch = qkv.dims[0], s.tokens = qkv.dims[1];
  s.heads = (int64_t)c.attrs[0], s.kv_heads = (int64_t)c.attrs[1], s.d = (int64_t)c.attrs[2], s.length = (int64_t)c.attrs[3];
  if (s.kv_heads <= 0 || s.heads % s.kv_heads != 0 || s.token() != qkv.dims[2])
    return error_text("%s: %lld query and %lld key/value heads of %lld do not make up rows of %lld", op, (long long)s.heads,
                      (long long)s.kv_heads, (long long)s.d, (long long)qkv.dims[2]);
  s.capacity = keys.rank == 4 ? keys.dims[2] : 0;
  const bool fits = keys.rank == 4 && keys.dims[1] == s.kv_heads && keys.dims[3] == s.d && keys.dtype == qkv.dtype &&
                    values.numel == keys.numel && values.dtype == keys.dtype;
  if (!fits || s.batch == 0 || keys.dims[0] % s.batch != 0 || s.length < 0 || s.length + s.tokens > s.capacity)
    return error_text("%s: %lld tokens after %lld do not fit into a cache of %lld sequences with %lld slots", op, (long long)s.tokens,
                      (long long)s.length, (long long)keys.dims[0], (long long)s.capacity);
  return nullptr;
}

template <class T> static void append(const Cached& s, const T* qkv, int64_t sequences, T* keys, T* values) {
  const int64_t repeats = sequences / s.batch, grain = 1 + kCacheGrain / (s.tokens * s.d * (int64_t)sizeof(T) + 1);
  parallel(sequences * s.kv_heads, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t head = begin; head < end; head++) {
      const T* from = qkv + head / s.kv_heads / repeats * s.tokens * s.token() + (s.heads + head % s.kv_heads) * s.d;
      const int64_t to = (head * s.capacity + s.length) * s.d;
      for (int64_t t = 0; t < s.tokens; t++, from += s.token()) {
        memcpy(keys + to + t * s.d, from, (size_t)s.d * sizeof(T));
        memcpy(values + to + t * s.d, from + s.kv_heads * s.d, (size_t)s.d * sizeof(T));
      }
    }
  });
}

KERNEL(cache_append, kFloats) {
  Cached s = {};
  if (const char* error = read_cache("cache_append", c, c.out[0], c.out[1], s)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    append(s, c.in[0].as<const T>(), c.out[0].dims[0], c.out[0].as<T>(), c.out[1].as<T>());
    return nullptr;
  });
}

// scores [j] = q . key j, four keys at a time.
template <class T> static void score(const float* q, const T* keys, int64_t n, int64_t d, float* scores) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4, keys += 4 * d) {
    vf sum[4] = {};
    for_vectors(0, d, [&](int64_t k, auto lanes) {
      const vf x = load(q + k);
      for (int i = 0; i < 4; i++) sum[i] = fmadd(x, load(keys + i * d + k, lanes), sum[i]);
    });
    for (int i = 0; i < 4; i++) scores[j + i] = hsum(sum[i]);
  }
  for (; j < n; j++, keys += d) {
    vf sum = {};
    for_vectors(0, d, [&](int64_t k, auto lanes) { sum = fmadd(load(q + k), load(keys + k, lanes), sum); });
    scores[j] = hsum(sum);
  }
}

// Scores become weights 2^(s - max).
static void soften(float* s, int64_t n, float& max, float& sum) {
  vf top = splat(-__builtin_inff()), total = {};
  for_vectors(0, n, [&](int64_t j, auto lanes) { top = vmax(top, keep(load(s + j, lanes), lanes, -__builtin_inff())); });
  max = hmax(top);
  for_vectors(0, n, [&](int64_t j, auto lanes) {
    const vf w = keep(vexp2(load(s + j, lanes) - max), lanes);
    store(s + j, w, lanes);
    total += w;
  });
  sum = hsum(total);
}

// out [g][d] = sum of weights[g][j] times value j. Values are read once for all heads of the group.
template <class T> static void weigh(const Cached& s, const float* weights, const T* values, int64_t n, float* out) {
  const int64_t group = s.group(), d = s.d, row = s.row();
  memset(out, 0, (size_t)(group * row) * sizeof(float));
  for (int64_t j = 0; j < n; j += 4, values += 4 * d) {
    const int depth = (int)(n - j < 4 ? n - j : 4);
    for_vectors(0, d, [&](int64_t k, auto lanes) {
      vf v[4];
      for (int i = 0; i < 4; i++) v[i] = i < depth ? load(values + i * d + k, lanes) : vf{};
      for (int64_t g = 0; g < group; g++) {
        vf sum = load(out + g * row + k);
        for (int i = 0; i < depth; i++) sum = fmadd(splat(weights[g * kBlock + j + i]), v[i], sum);
        store(out + g * row + k, sum);
      }
    });
  }
}

// Block `block` of what token t of sequence b sees, for the query heads of key head kv. room: q [group][row], scores [group][kBlock].
template <class T>
static void attend_block(const Cached& s, const T* qkv, const T* keys, const T* values, int64_t b, int64_t kv, int64_t t, int64_t block,
                         float* room, float* partial) {
  const int64_t group = s.group(), row = s.row();
  float *q = room, *scores = room + group * row;
  const T* from = qkv + (b * s.tokens + t) * s.token() + kv * group * s.d;
  for (int64_t g = 0; g < group; g++) {
    for (int64_t k = s.d / VL * VL; k < row; k++) q[g * row + k] = 0;
    for_vectors(0, s.d, [&](int64_t k, auto lanes) { store(q + g * row + k, load(from + g * s.d + k, lanes) * s.scale, lanes); });
  }
  const int64_t begin = s.first(b, t) + block * kBlock, end = s.last(t) + 1, n = end - begin < kBlock ? end - begin : kBlock;
  const int64_t at = ((b * s.kv_heads + kv) * s.capacity + begin) * s.d;
  for (int64_t g = 0; g < group; g++) {
    score(q + g * row, keys + at, n, s.d, scores + g * kBlock);
    if (s.bent()) bend(s, alibi_slope(kv * group + g, s.heads), s.last(t), begin, n, scores + g * kBlock, nullptr);
    soften(scores + g * kBlock, n, partial[2 * g], partial[2 * g + 1]);
  }
  weigh(s, scores, values + at, n, partial + 2 * group);
}

// Adds a block to what came before it.
static void merge(const Cached& s, const float* partial, float* total) {
  const int64_t group = s.group(), row = s.row();
  for (int64_t g = 0; g < group; g++) {
    const float before = total[2 * g], here = partial[2 * g], max = before > here ? before : here;
    const float keep = vexp2(splat(before - max))[0], take = vexp2(splat(here - max))[0];
    total[2 * g] = max;
    total[2 * g + 1] = fmadd(total[2 * g + 1], keep, partial[2 * g + 1] * take);
    float* out = total + 2 * group + g * row;
    const float* more = partial + 2 * group + g * row;
    for (int64_t k = 0; k < row; k += VL) store(out + k, fmadd(load(out + k), splat(keep), load(more + k) * take));
  }
}

template <class T> static void finish(const Cached& s, const float* total, int64_t b, int64_t kv, int64_t t, T* y) {
  const int64_t group = s.group();
  for (int64_t g = 0; g < group; g++) {
    const float inverse = 1 / total[2 * g + 1];
    T* to = y + ((b * s.tokens + t) * s.heads + kv * group + g) * s.d;
    const float* from = total + 2 * group + g * s.row();
    for_vectors(0, s.d, [&](int64_t k, auto lanes) { store(to + k, load(from + k) * inverse, lanes); });
  }
}

template <class T> static const char* attend(const Cached& s, const T* qkv, const T* keys, const T* values, T* y) {
  const int64_t rows = s.batch * s.kv_heads * s.tokens, partial = s.partial();
  const size_t room = (size_t)(s.group() * (s.row() + kBlock));
  const auto place = [&](int64_t task, int64_t& b, int64_t& kv, int64_t& t) {
    t = task % s.tokens, kv = task / s.tokens % s.kv_heads, b = task / s.tokens / s.kv_heads;
  };
  const auto blocks_of = [&](int64_t b, int64_t t) { return (s.last(t) - s.first(b, t)) / kBlock + 1; };
  int64_t most = 1;
  for (int64_t b = 0; b < s.batch; b++) {
    const int64_t blocks = blocks_of(b, s.tokens - 1);
    if (blocks > most) most = blocks;
  }
  bool ok = true;
  if (most == 1 || rows >= 4 * pool_threads()) {
    parallel(rows, 1, [&](int64_t begin, int64_t end, int worker) {
      float* at = (float*)scratch(worker, 0, (room + 2 * (size_t)partial) * sizeof(float));
      if (!at) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
      float *total = at + room, *next = total + partial;
      for (int64_t task = begin, b, kv, t; at && task < end; task++) {
        place(task, b, kv, t);
        attend_block(s, qkv, keys, values, b, kv, t, 0, at, total);
        for (int64_t block = 1; block < blocks_of(b, t); block++) {
          attend_block(s, qkv, keys, values, b, kv, t, block, at, next);
          merge(s, next, total);
        }
        finish(s, total, b, kv, t, y);
      }
    });
    return ok ? nullptr : kNoWorkspace;
  }
  float* partials = (float*)scratch(-1, 0, (size_t)(rows * most * partial) * sizeof(float));
  if (!partials) return kNoWorkspace;
  parallel(rows * most, 1, [&](int64_t begin, int64_t end, int worker) {
    float* at = (float*)scratch(worker, 0, room * sizeof(float));
    if (!at) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
    for (int64_t task = begin, b, kv, t; at && task < end; task++) {
      place(task / most, b, kv, t);
      if (task % most < blocks_of(b, t)) attend_block(s, qkv, keys, values, b, kv, t, task % most, at, partials + task * partial);
    }
  });
  if (!ok) return kNoWorkspace;
  parallel(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin, b, kv, t; task < end; task++) {
      place(task, b, kv, t);
      float* total = partials + task * most * partial;
      for (int64_t block = 1; block < blocks_of(b, t); block++) merge(s, total + block * partial, total);
      finish(s, total, b, kv, t, y);
    }
  });
  return nullptr;
}

KERNEL(cached_attention, kFloats) {
  Cached s = {};
  const View &qkv = c.in[0], &starts = c.in[1], &keys = c.out[1], &values = c.out[2];
  if (const char* error = read_cache("cached_attention", c, keys, values, s)) return error;
  if (starts.dtype != I32 || starts.numel != s.batch || keys.dims[0] != s.batch)
    return error_text("cached_attention: %lld rows with starts i32[%lld] and as many sequences in the cache, got %lld and %lld", (long long)s.batch,
                      (long long)s.batch, (long long)starts.numel, (long long)keys.dims[0]);
  s.starts = starts.as<const int32_t>(), s.scale = (float)(c.attrs[4] * kLog2E), s.window = (int64_t)c.attrs[5];
  s.softcap = c.attrs[6], s.alibi = c.attrs[7] != 0;
  for (int64_t b = 0; b < s.batch; b++)
    if (s.starts[b] < 0) return error_text("cached_attention: row %lld starts at slot %d", (long long)b, s.starts[b]);
  return by_float(qkv.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    append(s, qkv.as<const T>(), s.batch, keys.as<T>(), values.as<T>());
    return attend(s, qkv.as<const T>(), keys.as<const T>(), values.as<const T>(), c.out[0].as<T>());
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
