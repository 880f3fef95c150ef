// Routing of tokens to experts, its gradient, and how evenly it spreads them. logits [N, E]; see core/src/ops/route.ts and router-load.ts.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kMostExperts = 128;

DS_INLINE float exp_of(float x) { return vexp(splat(x))[0]; }

// The k largest logits of a row, the largest first, of equal ones the first; where values are no numbers, any that are left.
template <class T> static void choose(const T* row, int64_t E, int64_t k, int32_t* chosen, float* value) {
  bool taken[kMostExperts] = {};
  for (int64_t j = 0; j < k; j++) {
    int64_t best = -1;
    float top = 0;
    for (int64_t e = 0; e < E; e++) {
      if (taken[e]) continue;
      const float v = load_scalar(row + e);
      if (best < 0 || v > top) best = e, top = v;
    }
    taken[best] = true;
    chosen[j] = (int32_t)best, value[j] = top;
  }
}

KERNEL(route, kFloats) {
  const View& logits = c.in[0];
  const int64_t N = logits.rows(), E = logits.cols(), k = (int64_t)c.attrs[0];
  if (E > kMostExperts || k > E || c.out[0].numel != N * k || c.out[4].numel != E + 1)
    return error_text("route: at most %lld experts, and k = %lld of them for %lld tokens", (long long)kMostExperts, (long long)k, (long long)N);
  int32_t *chosen = c.out[1].as<int32_t>(), *order = c.out[2].as<int32_t>(), *place = c.out[3].as<int32_t>(), *offsets = c.out[4].as<int32_t>();
  float* weights = c.out[0].as<float>();
  by_float(logits.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(N, row_grain(E * k), [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; token++) {
        float* w = weights + token * k;
        choose(logits.as<const T>() + token * E, E, k, chosen + token * k, w);
        const float max = w[0];
        float sum = 0;
        for (int64_t j = 0; j < k; j++) sum += w[j] = exp_of(w[j] - max);
        for (int64_t j = 0; j < k; j++) w[j] /= sum;
      }
    });
    return nullptr;
  });
  int32_t next[kMostExperts + 1] = {};
  for (int64_t i = 0; i < N * k; i++) next[chosen[i] + 1]++;
  for (int64_t e = 0; e < E; e++) next[e + 1] += next[e];
  for (int64_t e = 0; e <= E; e++) offsets[e] = next[e];
  for (int64_t i = 0; i < N * k; i++) {
    const int32_t at = next[chosen[i]]++;
    order[at] = (int32_t)i, place[i] = at;
  }
  return nullptr;
}

KERNEL(route_backward, kFloats) {
  const View &dweights = c.in[0], &weights = c.in[1], &chosen = c.in[2], &dlogits = c.out[0];
  const int64_t k = weights.cols(), E = dlogits.cols();
  if (dweights.numel != weights.numel || chosen.numel != weights.numel || dlogits.rows() != weights.rows())
    return error_text("route_backward: the gradients, weights and experts chosen of %lld tokens do not fit together", (long long)dlogits.rows());
  return by_float(dlogits.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(weights.rows(), row_grain(E), [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; token++) {
        const float *w = weights.as<const float>() + token * k, *dw = dweights.as<const float>() + token * k;
        const int32_t* experts = chosen.as<const int32_t>() + token * k;
        T* to = dlogits.as<T>() + token * E;
        float dot = 0;
        for (int64_t j = 0; j < k; j++) dot += w[j] * dw[j];
        for_vectors(0, E, [&](int64_t i, auto n) { store(to + i, vf{}, n); });
        for (int64_t j = 0; j < k; j++) store_scalar(to + experts[j], w[j] * (dw[j] - dot));
      }
    });
    return nullptr;
  });
}

// p [E] = softmax of a row, in f32.
template <class T> static void probabilities(const T* row, int64_t E, float* p) {
  float max = -__builtin_inff(), sum = 0;
  for (int64_t e = 0; e < E; e++) {
    const float v = load_scalar(row + e);
    if (!(v <= max)) max = v;
  }
  for_vectors(0, E, [&](int64_t i, auto n) { store(p + i, vexp(load(row + i, n) - max), n); });
  for (int64_t e = 0; e < E; e++) sum += p[e];
  for (int64_t e = 0; e < E; e++) p[e] /= sum;
}

constexpr int64_t kTokens = 256;  // of a chunk: its sums are made one after the other, and then the chunks' in order

KERNEL(router_load, kFloats) {
  const View &logits = c.in[0], &offsets = c.in[1], &load = c.out[0];
  const int64_t N = logits.rows(), E = logits.cols(), chunks = (N + kTokens - 1) / kTokens;
  if (E > kMostExperts || offsets.numel != E + 1 || load.numel != 2 * E)
    return error_text("router_load: expected a load [2, %lld] and %lld offsets, of at most %lld experts", (long long)E, (long long)(E + 1),
                      (long long)kMostExperts);
  float* sums = (float*)scratch(-1, 0, (size_t)(chunks * E + 1) * sizeof(float));
  if (!sums) return kNoWorkspace;
  by_float(logits.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(chunks, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t chunk = begin; chunk < end; chunk++) {
        float *sum = sums + chunk * E, p[kMostExperts];
        for (int64_t e = 0; e < E; e++) sum[e] = 0;
        for (int64_t token = chunk * kTokens; token < N && token < (chunk + 1) * kTokens; token++) {
          probabilities(logits.as<const T>() + token * E, E, p);
          for (int64_t e = 0; e < E; e++) sum[e] += p[e];
        }
      }
    });
    return nullptr;
  });
  for (int64_t e = 0; e < E; e++) {
    float sum = 0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) sum += sums[chunk * E + e];
    load.as<float>()[e] = (float)(offsets.as<const int32_t>()[e + 1] - offsets.as<const int32_t>()[e]);
    load.as<float>()[E + e] = sum;
  }
  return nullptr;
}

KERNEL(router_load_backward, kFloats) {
  const View &dload = c.in[0], &logits = c.in[1], &dlogits = c.out[0];
  const int64_t E = logits.cols();
  if (E > kMostExperts || dload.numel != 2 * E || dlogits.numel != logits.numel || dlogits.dtype != logits.dtype)
    return error_text("router_load_backward: expected a gradient [2, %lld] and dlogits like logits", (long long)E);
  const float* upstream = dload.as<const float>() + E;
  return by_float(logits.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    parallel(logits.rows(), row_grain(E), [&](int64_t begin, int64_t end, int) {
      float p[kMostExperts];
      for (int64_t token = begin; token < end; token++) {
        probabilities(logits.as<const T>() + token * E, E, p);
        float dot = 0;
        for (int64_t e = 0; e < E; e++) dot += p[e] * upstream[e];
        T* to = dlogits.as<T>() + token * E;
        for (int64_t e = 0; e < E; e++) store_scalar(to + e, p[e] * (upstream[e] - dot));
      }
    });
    return nullptr;
  });
}

KERNEL(load_balance, dtype_bit(F32)) {
  const int64_t E = c.in[0].cols();
  const float* load = c.in[0].as<const float>();
  const double tokens = c.attrs[0];
  double sum = 0;
  for (int64_t e = 0; e < E; e++) sum += (double)load[e] * load[E + e];
  *c.out[0].as<float>() = (float)((double)E * sum / (tokens * tokens));
  return nullptr;
}

KERNEL(load_balance_backward, dtype_bit(F32)) {
  const int64_t E = c.in[1].cols();
  const float* load = c.in[1].as<const float>();
  float* dload = c.out[0].as<float>();
  const double tokens = c.attrs[0];
  const float factor = (float)((double)*c.in[0].as<const float>() * (double)E / (tokens * tokens));
  for (int64_t e = 0; e < E; e++) {
    const float count = load[e], probability = load[E + e];
    dload[e] = factor * probability, dload[E + e] = factor * count;
  }
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
