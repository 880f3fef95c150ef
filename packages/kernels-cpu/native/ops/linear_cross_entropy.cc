// loss = mean over labelled rows of (logsumexp(l) - l[label]), l = x w' [N, V], and its gradients, without ever holding l:
// it is made block by block (at most kColumns columns, 8 MiB), reduced while it is in the cache, and made again for the
// backward (as in Wijmans et al., "Cut your losses in large-vocabulary language models", 2024).
#include "gemm.h"

extern "C" double log(double);

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kColumns = 2048;
constexpr int64_t kLogits = 2 << 20;  // floats of logits at a time
enum Slot { kBlockSlot = 2, kRowSlot = 3, kDxSlot = 4, kDwSlot = 5 };

struct Head {
  int64_t n, c, v;
  const int32_t* labels;
  int32_t ignored;
  int64_t valid;
  int64_t block_rows, block_columns;
  float softcap;  // logits l are softcap tanh(l / softcap); 0: as they are
};

static const char* read_head(const Call& c, int first, double ignored, double softcap, const char* op, Head& h) {
  h.softcap = (float)softcap;
  h.n = c.in[first].rows(), h.c = c.in[first].cols(), h.v = c.in[first + 1].dims[0];
  h.labels = c.in[first + 2].as<int32_t>(), h.ignored = (int32_t)ignored, h.valid = 0;
  if (c.in[first + 1].cols() != h.c || c.in[first + 2].numel != h.n)
    return error_text("%s: x has %lld rows of %lld, w rows of %lld, and there are %lld labels", op, (long long)h.n, (long long)h.c,
                      (long long)c.in[first + 1].cols(), (long long)c.in[first + 2].numel);
  for (int64_t i = 0; i < h.n; i++) {
    if (h.labels[i] == h.ignored) continue;
    if (h.labels[i] < 0 || h.labels[i] >= h.v)
      return error_text("%s: label %d of row %lld is outside [0, %lld) and is not ignoreIndex %d", op, h.labels[i], (long long)i,
                        (long long)h.v, h.ignored);
    h.valid++;
  }
  h.block_columns = smaller(kColumns, h.v);
  h.block_rows = smaller(larger(1, h.n), larger(64, kLogits / h.block_columns));
  return nullptr;
}

// Logits of rows [i, i + m) and columns [j, j + n) into block [m, n].
template <class T> static bool logits(const View& x, const View& w, const Head& h, int64_t i, int64_t m, int64_t j, int64_t n, float* block) {
  Gemm<T, T, float> g = {};
  g.m = m, g.n = n, g.k = h.c;
  g.a = x.as<T>() + i * h.c, g.lda = h.c;
  g.b = whole(w.as<T>() + j * h.c, h.c, true, n);
  g.c = block, g.ldc = n;
  if (!gemm(g)) return false;
  if (h.softcap > 0) {
    const float cap = h.softcap, inverse = 1 / cap;
    parallel(m, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t at = begin * n; at < end * n; at += VL) {
        const int64_t lanes = smaller(VL, end * n - at);
        store(block + at, vtanh(load(block + at, lanes) * inverse) * cap, lanes);
      }
    });
  }
  return true;
}

// ---- forward -------------------------------------------------------------------------------------------
struct Row {
  double sum;  // of e^(l - max)
  float max, target;
};

static void reduce_row(const float* l, int64_t n, Row& row) {
  vf top = splat(-__builtin_inff());
  int64_t j = 0;
  for (; j + VL <= n; j += VL) top = vmax(top, load(l + j));
  float max = hmax(top);
  for (; j < n; j++) max = max > l[j] ? max : l[j];
  if (max > row.max) {
    if (row.sum != 0) row.sum *= (double)vexp(splat(row.max - max))[0];
    row.max = max;
  }
  vf sum = vf{}, shift = splat(row.max);
  for (j = 0; j + VL <= n; j += VL) sum += vexp(load(l + j) - shift);
  if (j < n) {
    vf tail = vexp(load(l + j, n - j) - shift);
    sum += lane_index() < (int32_t)(n - j) ? tail : vf{};
  }
  row.sum += (double)hsum(sum);
}

template <class T> static const char* forward(const Call& c, const Head& h) {
  const View &x = c.in[0], &w = c.in[1];
  float *loss = c.out[0].as<float>(), *lse = c.out[1].as<float>();
  float* block = (float*)scratch(-1, kBlockSlot, (size_t)(h.block_rows * h.block_columns) * sizeof(float));
  Row* rows = (Row*)scratch(-1, kRowSlot, (size_t)h.block_rows * sizeof(Row));
  if (!block || !rows) return kOutOfWorkspace;
  double total = 0;
  for (int64_t i = 0; i < h.n; i += h.block_rows) {
    const int64_t m = smaller(h.block_rows, h.n - i);
    for (int64_t r = 0; r < m; r++) rows[r] = {0, -__builtin_inff(), 0};
    for (int64_t j = 0; j < h.v; j += h.block_columns) {
      const int64_t n = smaller(h.block_columns, h.v - j);
      if (!logits<T>(x, w, h, i, m, j, n, block)) return kOutOfWorkspace;
      parallel(m, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; r++) {
          reduce_row(block + r * n, n, rows[r]);
          const int64_t at = h.labels[i + r] - j;
          if (at >= 0 && at < n) rows[r].target = block[r * n + at];
        }
      });
    }
    for (int64_t r = 0; r < m; r++) {
      const double row_lse = (double)rows[r].max + log(rows[r].sum);
      lse[i + r] = (float)row_lse;
      if (h.labels[i + r] != h.ignored) total += row_lse - (double)rows[r].target;
    }
  }
  *loss = h.valid ? (float)(total / (double)h.valid) : 0.0f;
  return nullptr;
}

KERNEL(linear_cross_entropy, kFloats) {
  Head h;
  if (const char* error = read_head(c, 0, c.attrs[0], c.attrs[1], "linear_cross_entropy", h)) return error;
  return by_float(c.in[0].dtype, [&](auto t) { return forward<decltype(t)>(c, h); });
}

// ---- backward ------------------------------------------------------------------------------------------
// l becomes (e^(l - lse) - onehot(label)) * scale, and with a soft cap times 1 - (l / softcap)^2, its derivative.
static void softmax_gradient(float* l, int64_t n, float lse, int64_t label, float scale, float softcap) {
  const vf shift = splat(lse), factor = splat(scale);
  const bool labelled = label >= 0 && label < n;
  if (softcap > 0) {
    const float inverse = 1 / softcap, bent = labelled ? l[label] * inverse : 0;
    for (int64_t j = 0; j < n; j += VL) {
      const int64_t lanes = smaller(VL, n - j);
      vf at = load(l + j, lanes), part = at * inverse;
      store(l + j, vexp(at - shift) * factor * (1.0f - part * part), lanes);
    }
    if (labelled) l[label] -= scale * (1.0f - bent * bent);
    return;
  }
  for (int64_t j = 0; j < n; j += VL) {
    const int64_t lanes = smaller(VL, n - j);
    store(l + j, vexp(load(l + j, lanes) - shift) * factor, lanes);
  }
  if (labelled) l[label] -= scale;
}

// One block's gradient times w or x, added to what earlier blocks left.
template <class T, class TC>
static bool add_product(const float* block, int64_t m, int64_t n, bool of_weights, const T* other, int64_t columns, TC* to, bool accumulate) {
  Gemm<float, T, TC> g = {};
  g.m = of_weights ? n : m, g.k = of_weights ? m : n, g.n = columns;
  g.a = block, g.lda = n, g.a_transposed = of_weights;
  g.b = whole(other, columns, false, columns);
  g.c = to, g.ldc = columns, g.accumulate = accumulate;
  return gemm(g);
}

template <class T, class TW> static const char* backward(const Call& c, const Head& h, bool accumulate) {
  const View &x = c.in[1], &w = c.in[2], &dx = c.out[0];
  TW* dw = c.n_out > 1 ? c.out[1].as<TW>() : nullptr;  // none of a head that is frozen
  const float* lse = c.in[4].as<float>();
  const float scale = h.valid ? *c.in[0].as<float>() / (float)h.valid : 0.0f;
  float* block = (float*)scratch(-1, kBlockSlot, (size_t)(h.block_rows * h.block_columns) * sizeof(float));
  if (!block) return kOutOfWorkspace;
  // Sums over several blocks stay in f32 until the last: all of dx when the columns are cut, one block of dw when the rows are.
  float *dx_sum = nullptr, *dw_sum = nullptr;
  if (dtype_of<T>::value != F32 && h.block_columns < h.v) {
    dx_sum = (float*)scratch(-1, kDxSlot, (size_t)(h.n * h.c) * sizeof(float));
    if (!dx_sum) return kOutOfWorkspace;
  }
  if (dw && dtype_of<TW>::value != F32 && h.block_rows < h.n) {
    dw_sum = (float*)scratch(-1, kDwSlot, (size_t)(h.block_columns * h.c) * sizeof(float));
    if (!dw_sum) return kOutOfWorkspace;
  }
  bool ok = true;
  for (int64_t j = 0; j < h.v && ok; j += h.block_columns) {
    const int64_t n = smaller(h.block_columns, h.v - j);
    TW* dw_block = dw ? dw + j * h.c : nullptr;
    for (int64_t i = 0; i < h.n && ok; i += h.block_rows) {
      const int64_t m = smaller(h.block_rows, h.n - i);
      if (!logits<T>(x, w, h, i, m, j, n, block)) return kOutOfWorkspace;
      parallel(m, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; r++) {
          const int32_t label = h.labels[i + r];
          if (label == h.ignored)
            memset(block + r * n, 0, (size_t)n * sizeof(float));
          else
            softmax_gradient(block + r * n, n, lse[i + r], label - j, scale, h.softcap);
        }
      });
      const T *xs = x.as<T>() + i * h.c, *ws = w.as<T>() + j * h.c;
      ok = dx_sum ? add_product(block, m, n, false, ws, h.c, dx_sum + i * h.c, j > 0)
                  : add_product(block, m, n, false, ws, h.c, dx.as<T>() + i * h.c, j > 0);
      if (dw)
        ok = ok && (dw_sum ? add_product(block, m, n, true, xs, h.c, dw_sum, i > 0)
                           : add_product(block, m, n, true, xs, h.c, dw_block, i > 0 || accumulate));
    }
    if (dw_sum)
      parallel(n, 16, [&](int64_t begin, int64_t end, int) {
        round_rows(dw_sum + begin * h.c, h.c, end - begin, h.c, dw_block + begin * h.c, h.c, accumulate);
      });
  }
  if (dx_sum)
    parallel(h.n, 16, [&](int64_t begin, int64_t end, int) {
      round_rows(dx_sum + begin * h.c, h.c, end - begin, h.c, dx.as<T>() + begin * h.c, h.c, false);
    });
  return ok ? nullptr : kOutOfWorkspace;
}

KERNEL(linear_cross_entropy_backward, kFloats) {
  Head h;
  if (const char* error = read_head(c, 1, c.attrs[0], c.attrs[2], "linear_cross_entropy_backward", h)) return error;
  const bool accumulate = c.attrs[1] != 0;
  return by_float(c.in[1].dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    if (c.n_out > 1 && c.out[1].dtype == F32) return backward<T, float>(c, h, accumulate);
    return backward<T, T>(c, h, accumulate);
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
