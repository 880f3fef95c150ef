// Draws a token for each row of scores [B, V], and lowers the scores of given tokens. A row is one task. Its weights
// e^((x - max) / temperature) are kept in f32; which of them stay is a threshold found by bisecting the bits of a float, which are in the order of
// floats: no sorting. Sums are of parts of kPart, in order.
#include "../lanes.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kPart = 4096;

// The likeliest token, the first of equals; its score.
template <class T> static int64_t likeliest(const T* x, int64_t size, float& max) {
  vf top = splat(-__builtin_inff());
  for_vectors(0, size, [&](int64_t i, auto n) {
    const vf v = keep(load(x + i, n), n, -__builtin_inff());
    top = vmax(top, v == v ? v : splat(-__builtin_inff()));
  });
  max = hmax(top);
  for (int64_t i = 0; i < size; i += VL) {
    const int64_t lanes = size - i < VL ? size - i : VL;
    const vf v = load(x + i, lanes);
    for (int k = 0; k < lanes; k++)
      if (v[k] == max) return i + k;
  }
  return 0;
}

struct Weights {
  const float* w;  // padded with zeros to a multiple of VL
  int64_t size;

  int64_t count(int32_t least) const {
    vi sum = {};
    for (int64_t i = 0; i < size; i += VL) sum -= (vi)(as_int(load(w + i)) >= least);
    int64_t total = 0;
    for (int k = 0; k < VL; k++) total += sum[k];
    return total;
  }
  double mass_of(int64_t begin, int32_t least) const {
    const int64_t n = size - begin < kPart ? size - begin : kPart;
    vf sum[kParts] = {};
    for_parts(n, [&](int part, int64_t i, auto lanes) {
      const vf v = load(w + begin + i, lanes);
      sum[part] += as_int(v) >= least ? v : vf{};
    });
    return sum_parts(sum);
  }
  double mass(int32_t least) const {
    double sum = 0;
    for (int64_t begin = 0; begin < size; begin += kPart) sum += mass_of(begin, least);
    return sum;
  }
};

// The largest of [low, 1] for which `holds`, which does for low, as the bits of a float.
template <class F> static int32_t bisect(int32_t low, const F& holds) {
  int32_t beyond = 0x3f800001;
  while (beyond - low > 1) {
    const int32_t middle = low + (beyond - low) / 2;
    if (holds(middle)) low = middle;
    else beyond = middle;
  }
  return low;
}

struct Draw {
  float inverse_temperature, min_p;
  double top_p;
  int64_t top_k;
};

static int64_t draw(const Weights& all, const Draw& s, float u) {
  int32_t least = 0;
  if (s.top_k > 0 && s.top_k < all.size) least = bisect(0, [&](int32_t t) { return t == 0 || all.count(t) >= s.top_k; });
  if (s.top_p < 1) {
    const double wanted = s.top_p * all.mass(least);
    least = bisect(least, [&](int32_t t) { return t == least || all.mass(t) >= wanted; });
  }
  int32_t share;
  memcpy(&share, &s.min_p, sizeof share);
  if (share > least) least = share;
  double rest = (double)u * all.mass(least);
  int64_t last = 0;
  for (int64_t begin = 0; begin < all.size; begin += kPart) {
    const double mass = all.mass_of(begin, least);
    const int64_t end = begin + kPart < all.size ? begin + kPart : all.size;
    const bool here = rest < mass;
    if (!here) rest -= mass;
    if (mass == 0) continue;
    for (int64_t i = begin; i < end; i++) {
      int32_t bits;
      memcpy(&bits, all.w + i, sizeof bits);
      if (bits < least || all.w[i] == 0) continue;
      last = i;
      if (here && (rest -= (double)all.w[i]) < 0) return i;
    }
    if (here) break;  // what rounding has left
  }
  return last;
}

template <class T> static int64_t sample(const T* x, int64_t size, const Draw& s, float u, float* w) {
  float max;
  const int64_t top = likeliest(x, size, max);
  if (max - max != 0) return top;  // infinite
  for_vectors(0, size, [&](int64_t i, auto n) {
    const vf v = vexp((keep(load(x + i, n), n, -__builtin_inff()) - max) * s.inverse_temperature);
    store(w + i, v == v ? v : vf{});
  });
  return draw({w, size}, s, u);
}

KERNEL(sample_token, kFloats) {
  const View &x = c.in[0], &ids = c.out[0];
  const int64_t V = x.cols();
  const float* u = c.n_in > 1 ? c.in[1].as<const float>() : nullptr;
  if (ids.dtype != I32 || ids.numel != x.rows() || (u && (c.in[1].dtype != F32 || c.in[1].numel != x.rows() || !(c.attrs[0] > 0))))
    return error_text("sample_token: expected ids i32[%lld], u f32[%lld] and a temperature above 0", (long long)x.rows(), (long long)x.rows());
  const Draw s = {(float)(1 / c.attrs[0]), (float)c.attrs[3], c.attrs[2], (int64_t)c.attrs[1]};
  bool ok = true;
  by_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    parallel(x.rows(), 1, [&](int64_t begin, int64_t end, int worker) {
      float* w = u ? (float*)scratch(worker, 0, (size_t)(V + VL) * sizeof(float)) : nullptr;
      if (u && !w) {
        __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
        return;
      }
      for (int64_t row = begin; row < end; row++) {
        const T* scores = x.as<const T>() + row * V;
        float max;
        ids.as<int32_t>()[row] = (int32_t)(u ? sample(scores, V, s, u[row], w) : likeliest(scores, V, max));
      }
    });
    return 0;
  });
  return ok ? nullptr : kNoWorkspace;
}

KERNEL(penalize_tokens, kFloats) {
  const View &x = c.in[0], &tokens = c.in[1], &y = c.out[0];
  const int64_t V = x.cols(), rows = x.rows(), columns = tokens.cols();
  if (y.dtype != x.dtype || y.numel != x.numel || tokens.dtype != I32 || (columns != rows && columns != 1))
    return error_text("penalize_tokens: expected y like x and tokens i32[any, %lld]", (long long)rows);
  const float penalty = (float)c.attrs[0];
  const bool forbid = penalty == __builtin_inff();
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(rows, row_grain(V), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const T* from = x.as<const T>() + row * V;
        T* to = y.as<T>() + row * V;
        memcpy(to, from, (size_t)V * sizeof(T));
        for (int64_t i = 0; i < tokens.rows(); i++) {
          const int32_t token = tokens.as<const int32_t>()[i * columns + (columns == 1 ? 0 : row)];
          if (token < 0 || token >= V) continue;
          const float score = load_scalar(from + token);
          store_scalar(to + token, forbid ? -penalty : score > 0 ? score / penalty : score * penalty);
        }
      }
    });
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
