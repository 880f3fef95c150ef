// Softmax attention over packed qkv [B, T, (Hq + 2 Hkv) D], blockwise with a running maximum (Dao et al.,
// "FlashAttention", 2022): scores exist for a block of queries and kKeys keys at a time, never T x T. Query head h reads
// key/value head h / (Hq / Hkv). The block sizes are constants, so no bits depend on threads.
#include "attention.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kQueries = 4 * MR;          // rows of a forward block: scores in L1 and L2
constexpr int64_t kBackwardQueries = 8 * MR;  // two score blocks, summed over as the depth of dK and dV
constexpr int64_t kFactors = kKeys + 4 + kPhiloxElements;
constexpr float kNone = -1e30f;               // the score of a key that is not seen yet: its weight is nothing beside any other
constexpr const char* kNoWorkspace = "out of memory for the workspace of attention";

// ---- forward -------------------------------------------------------------------------------------------
struct Running {
  float max[kQueries], sum[kQueries];
};

// s[seen .. width) = 0, in vectors.
static inline void clear(float* s, int64_t seen, int64_t width) {
  for (int64_t j = seen; j < width; j += VL) store(s + j, vf{}, smaller(VL, width - j));
}

// Weights 2^(s - max) of one row in place, zero from `seen` to `width`; sums are of weights before dropout.
static void soften(float* s, int64_t seen, int64_t width, float* out, int64_t d, bool first, float& max, float& sum) {
  vf top = splat(-__builtin_inff());
  int64_t j = 0;
  for (; j + VL <= seen; j += VL) top = vmax(top, load(s + j));
  float high = hmax(top);
  for (; j < seen; j++) high = high > s[j] ? high : s[j];
  if (!first && !(high > max)) high = max;
  vf shift = splat(high), total = vf{};
  for (j = 0; j + VL <= seen; j += VL) {
    vf w = vexp2(load(s + j) - shift);
    store(s + j, w);
    total += w;
  }
  if (j < seen) {
    vf w = lane_index() < (int32_t)(seen - j) ? vexp2(load(s + j, seen - j) - shift) : vf{};
    store(s + j, w, seen - j);
    total += w;
  }
  clear(s, seen, width);
  if (first) {
    sum = hsum(total);
  } else {
    const float shrink = vexp2(splat(max - high))[0];
    if (shrink != 1)
      for (j = 0; j < d; j++) out[j] *= shrink;
    sum = fmadd(sum, shrink, hsum(total));
  }
  max = high;
}

static void drop(const Attention& a, int64_t b, int64_t h, int64_t i, int64_t j0, int64_t n, float* w, float* room) {
  const uint64_t first = (uint64_t)(((b * a.heads + h) * a.length + i) * a.length + j0);
  const float* factor = dropout_factors(a.key, first, n, a.dropout, room);
  for (int64_t j = 0; j < n; j++) w[j] *= factor[j];
}

// Rows [i0, i0 + m) of head h. keys: slivers of k'; values: rows of v. room: scores, q, out, dropout factors.
template <class T>
static void attend(const Attention& a, const T* qkv, int64_t b, int64_t h, int64_t i0, int64_t m, const float* keys, const float* values,
                   float* room, T* y, float* lse) {
  float *s = room, *q = s + kQueries * kScoreRow, *out = q + kQueries * a.row(), *factors = out + kQueries * a.row();
  Running r;
  copy_rows(qkv + (b * a.length + i0) * a.token() + h * a.d, a.token(), m, a.d, (float)(a.scale * kLog2E), q, a.row());
  const int64_t end = a.causal ? i0 + m : a.length;
  const int64_t begin = first_block(a, b, i0);
  const double slope = alibi_slope(h, a.heads);
  for (int64_t j0 = begin; j0 < end; j0 += kKeys) {
    const int64_t n = smaller(kKeys, end - j0);
    scores(a, q, i0, m, keys, j0, n, s);
    for (int64_t i = 0; i < m; i++) {
      float* row = s + i * kScoreRow;
      const int64_t seen = seen_keys(a, i0 + i, j0, n), width = smaller(n, seen + MR);
      const int64_t hidden = hidden_keys(a, b, i0 + i, j0, seen);
      if (seen == hidden) {
        clear(row, 0, width);
        if (j0 == begin) r.max[i] = kNone, r.sum[i] = 0;
        continue;
      }
      if (a.bent()) bend(a, slope, i0 + i, j0, seen, row, nullptr);
      for (int64_t j = 0; j < hidden; j++) row[j] = kNone;
      soften(row, seen, width, out + i * a.row(), a.d, j0 == begin, r.max[i], r.sum[i]);
      if (hidden > 0) clear(row, 0, hidden);
      if (a.dropout > 0) drop(a, b, h, i0 + i, j0, seen, row, factors);
    }
    weigh(a, s, i0, m, values + j0 * a.row(), j0, n, out, j0 == begin ? Base::kZero : Base::kC);
  }
  for (int64_t i = 0; i < m; i++) {
    T* to = y + ((b * a.length + i0 + i) * a.heads + h) * a.d;
    store_rows(out + i * a.row(), 0, 1, a.d, 1 / r.sum[i], to, 0);
  }
  float* to = lse + (b * a.heads + h) * a.length + i0;
  for (int64_t i = 0; i < m; i += VL) {
    const int64_t lanes = smaller(VL, m - i);
    store(to + i, (load(r.max + i, lanes) + vlog2(load(r.sum + i, lanes))) * (float)kLn2, lanes);
  }
}

// Block t of the query rows of a sequence; heavier blocks (later rows see more keys) have lower numbers.
template <class T>
static void attend_block(const Attention& a, const T* qkv, int64_t b, int64_t h, int64_t t, const float* keys, const float* values,
                         float* room, T* y, float* lse) {
  const int64_t blocks = (a.length + kQueries - 1) / kQueries, at = blocks - 1 - t;
  const int64_t i0 = a.length * at / blocks;
  attend(a, qkv, b, h, i0, a.length * (at + 1) / blocks - i0, keys, values, room, y, lse);
}

template <class T> static const char* forward(const Attention& a, const T* qkv, T* y, float* lse) {
  const int64_t blocks = (a.length + kQueries - 1) / kQueries, heads = a.batch * a.kv_heads;
  const size_t room_size = (size_t)(kQueries * (kScoreRow + 2 * a.row()) + kFactors);
  const size_t head_size = (size_t)(a.columns_size() + a.rows_size());
  const bool alone = heads >= 8 * pool_threads();  // a thread takes whole heads; else all threads share one at a time
  bool ok = true;
  float* shared = alone ? nullptr : (float*)scratch(-1, 0, head_size * sizeof(float));
  if (!alone && !shared) return kNoWorkspace;
  const auto copy = [&](int64_t head, int64_t begin, int64_t end, float* to) {  // slivers [begin, end) of k and v
    const int64_t b = head / a.kv_heads, kv = head % a.kv_heads;
    const T* k = qkv + b * a.length * a.token() + (a.heads + kv) * a.d;
    copy_columns(a, k, a.token(), begin, end, to);
    const int64_t i = begin * NR, rows = smaller(end * NR, a.length) - i;
    copy_rows(k + a.kv_heads * a.d + i * a.token(), a.token(), rows, a.d, 1, to + a.columns_size() + i * a.row(), a.row());
  };
  const auto attend_all = [&](int64_t head, int64_t begin, int64_t end, const float* kv, float* room) {
    const int64_t b = head / a.kv_heads, first = head % a.kv_heads * a.group();
    for (int64_t t = begin; t < end; t++)
      attend_block(a, qkv, b, first + t % a.group(), t / a.group(), kv, kv + a.columns_size(), room, y, lse);
  };
  const auto room_of = [&](int worker, size_t size) {
    float* room = (float*)scratch(worker, 0, size * sizeof(float));
    if (!room) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
    return room;
  };
  if (alone) {
    parallel(heads, 1, [&](int64_t begin, int64_t end, int worker) {
      float* room = room_of(worker, head_size + room_size);
      for (int64_t head = begin; room && head < end; head++) {
        copy(head, 0, a.slivers(), room);
        attend_all(head, 0, blocks * a.group(), room, room + head_size);
      }
    });
  } else {
    for (int64_t head = 0; head < heads; head++) {
      parallel(a.slivers(), 4, [&](int64_t begin, int64_t end, int) { copy(head, begin, end, shared); });
      parallel(blocks * a.group(), 1, [&](int64_t begin, int64_t end, int worker) {
        if (float* room = room_of(worker, room_size)) attend_all(head, begin, end, shared, room);
      });
    }
  }
  return ok ? nullptr : kNoWorkspace;
}

KERNEL(attention, kFloats) {
  Attention a = {};
  if (const char* error = read_attention("attention", c, c.in[0], 1, a)) return error;
  return by_float(c.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    return forward(a, c.in[0].as<T>(), c.out[0].as<T>(), c.out[1].as<float>());
  });
}

// ---- backward ------------------------------------------------------------------------------------------
// Of one key/value head, by one thread: for every block of queries the weights are made again from lse, then
//   dv += w' dy;   ds = w (dy v' - rowsum(dy y));   dq = scale ds k;   dk += scale ds' q
struct Copies {
  float *k_columns, *v_columns, *k, *dk, *dv;                     // of the head
  float *s, *ds, *q, *dy, *dq, *factors, *slopes, *lse, *delta;   // of a block of queries
};

static int64_t lay_out(const Attention& a, float* base, Copies& r) {
  float* at = base;
  const auto take = [&](int64_t n) { return (at += n) - n; };
  r.k_columns = take(a.columns_size()), r.v_columns = take(a.columns_size());
  r.k = take(a.rows_size()), r.dk = take(a.rows_size()), r.dv = take(a.rows_size());
  r.s = take(kBackwardQueries * kScoreRow), r.ds = take(kBackwardQueries * kScoreRow);
  const int64_t rows = kBackwardQueries * a.row() + NR;
  r.q = take(rows), r.dy = take(rows), r.dq = take(rows);
  r.factors = take(kFactors), r.slopes = take(kScoreRow), r.lse = take(kBackwardQueries), r.delta = take(kBackwardQueries);
  return at - base;
}

// s (scores) becomes the weights that met v, ds (dy v') the gradient of the scores; both zero from `seen` to `width`.
static void soften_gradient(float* s, float* ds, int64_t seen, int64_t width, float lse, float delta, const float* factor) {
  const vf shift = splat(lse), mean = splat(delta);
  for (int64_t j = 0; j < seen; j += VL) {
    const int64_t lanes = smaller(VL, seen - j);
    vf w = vexp2(load(s + j, lanes) - shift), g = load(ds + j, lanes), f = factor ? load(factor + j, lanes) : splat(1);
    store(ds + j, w * fmadd(g, f, -mean), lanes);
    store(s + j, w * f, lanes);
  }
  clear(s, seen, width);
  clear(ds, seen, width);
}

static void multiply(float* x, const float* by, int64_t n) {
  for (int64_t j = 0; j < n; j += VL) {
    const int64_t lanes = smaller(VL, n - j);
    store(x + j, load(x + j, lanes) * load(by + j, lanes), lanes);
  }
}

template <class T> struct Gradients {
  const T *dy, *qkv, *y;
  const float* lse;
  T* dqkv;
};

// Rows [i0, i0 + m) of query head h.
template <class T>
static void attend_backward(const Attention& a, const Gradients<T>& g, int64_t b, int64_t h, int64_t i0, int64_t m, const Copies& r) {
  const int64_t token = b * a.length + i0, wide = a.heads * a.d;
  copy_rows(g.qkv + token * a.token() + h * a.d, a.token(), m, a.d, (float)(a.scale * kLog2E), r.q, a.row());
  copy_rows(g.dy + token * wide + h * a.d, wide, m, a.d, 1, r.dy, a.row());
  for (int64_t i = 0; i < m; i++) {
    const T* y = g.y + (token + i) * wide + h * a.d;
    vf sum = vf{};
    for (int64_t k = 0; k < a.d; k += VL) {
      const int64_t lanes = smaller(VL, a.d - k);
      sum = fmadd(load(r.dy + i * a.row() + k, lanes), load(y + k, lanes), sum);
    }
    r.delta[i] = hsum(sum);
    r.lse[i] = (float)((double)g.lse[(b * a.heads + h) * a.length + i0 + i] * kLog2E);
  }
  const int64_t end = a.causal ? i0 + m : a.length;
  const int64_t begin = first_block(a, b, i0);
  const double slope = alibi_slope(h, a.heads);
  for (int64_t j0 = begin; j0 < end; j0 += kKeys) {
    const int64_t n = smaller(kKeys, end - j0);
    scores(a, r.q, i0, m, r.k_columns, j0, n, r.s);
    scores(a, r.dy, i0, m, r.v_columns, j0, n, r.ds);
    for (int64_t i = 0; i < m; i++) {
      const int64_t seen = seen_keys(a, i0 + i, j0, n), width = smaller(n, seen + MR);
      const float* factor = nullptr;
      if (a.dropout > 0 && seen > 0)
        factor = dropout_factors(a.key, (uint64_t)(((b * a.heads + h) * a.length + i0 + i) * a.length + j0), seen, a.dropout, r.factors);
      if (a.bent()) bend(a, slope, i0 + i, j0, seen, r.s + i * kScoreRow, r.slopes);
      soften_gradient(r.s + i * kScoreRow, r.ds + i * kScoreRow, seen, width, r.lse[i], r.delta[i], factor);
      if (a.softcap > 0) multiply(r.ds + i * kScoreRow, r.slopes, seen);
      const int64_t hidden = hidden_keys(a, b, i0 + i, j0, seen);
      if (hidden > 0) clear(r.s + i * kScoreRow, 0, hidden), clear(r.ds + i * kScoreRow, 0, hidden);
    }
    weigh_transposed(a, r.s, i0, m, r.dy, j0, n, r.dv + j0 * a.row());
    weigh_transposed(a, r.ds, i0, m, r.q, j0, n, r.dk + j0 * a.row());
    weigh(a, r.ds, i0, m, r.k + j0 * a.row(), j0, n, r.dq, j0 == begin ? Base::kZero : Base::kC);
  }
  store_rows(r.dq, a.row(), m, a.d, (float)a.scale, g.dqkv + token * a.token() + h * a.d, a.token());
}

template <class T> static void head_backward(const Attention& a, const Gradients<T>& g, int64_t b, int64_t kv, const Copies& r) {
  const int64_t blocks = (a.length + kBackwardQueries - 1) / kBackwardQueries, v_after_k = a.kv_heads * a.d;
  const int64_t at = b * a.length * a.token() + (a.heads + kv) * a.d;
  copy_columns(a, g.qkv + at, a.token(), 0, a.slivers(), r.k_columns);
  copy_columns(a, g.qkv + at + v_after_k, a.token(), 0, a.slivers(), r.v_columns);
  copy_rows(g.qkv + at, a.token(), a.length, a.d, 1, r.k, a.row());
  memset(r.dk, 0, (size_t)a.rows_size() * sizeof(float));
  memset(r.dv, 0, (size_t)a.rows_size() * sizeof(float));
  for (int64_t h = kv * a.group(); h < (kv + 1) * a.group(); h++)
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t i0 = a.length * block / blocks;
      attend_backward(a, g, b, h, i0, a.length * (block + 1) / blocks - i0, r);
    }
  // r.q carries scale * log2 e, of which dk wants scale.
  store_rows(r.dk, a.row(), a.length, a.d, (float)kLn2, g.dqkv + at, a.token());
  store_rows(r.dv, a.row(), a.length, a.d, 1, g.dqkv + at + v_after_k, a.token());
}

KERNEL(attention_backward, kFloats) {
  Attention a = {};
  if (const char* error = read_attention("attention_backward", c, c.in[1], 4, a)) return error;
  return by_float(c.in[0].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const Gradients<T> g = {c.in[0].as<T>(), c.in[1].as<T>(), c.in[2].as<T>(), c.in[3].as<float>(), c.out[0].as<T>()};
    bool ok = true;
    parallel(a.batch * a.kv_heads, 1, [&](int64_t begin, int64_t end, int worker) {
      Copies r;
      float* room = (float*)scratch(worker, 0, (size_t)lay_out(a, nullptr, r) * sizeof(float));
      if (!room) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
      lay_out(a, room, r);
      for (int64_t head = begin; room && head < end; head++) head_backward(a, g, head / a.kv_heads, head % a.kv_heads, r);
    });
    return ok ? nullptr : kNoWorkspace;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
