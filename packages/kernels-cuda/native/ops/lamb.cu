// LAMB (You et al., 2020) in pieces, all f32:
//   lamb_moments  m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2     with g = grad coefficient
//   lamb_update   u = m / bias1 / (sqrt(v / bias2) + eps) + weightDecay p
//   lamb_ratio    r = ||p|| / ||u|| within bounds, per parameter, from sums of squares that are added rank by rank
#include <cmath>

#include "optimizer.cuh"

namespace ds {
namespace {

struct Moments {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;

  __device__ __forceinline__ void operator()(float g, float (&x)[2]) const {
    x[0] = fused(one_minus_beta1, g, times(beta1, x[0]));
    x[1] = fused(times(one_minus_beta2, g), g, times(beta2, x[1]));
  }
};

struct Update {
  float unbias1, unbias2, root_unbias2, eps, decay;
  bool inside;

  __device__ __forceinline__ float operator()(float p, float m, float v) const {
    const float second = inside ? root(fused(v, unbias2, eps)) : plus(times(root(v), root_unbias2), eps);
    return fused(decay, p, over(times(m, unbias1), second));
  }
};

constexpr int kThreads = 256;

// A thread's V elements lie together; the last of the range are taken one by one.
template <int V, class P, class M>
__global__ void __launch_bounds__(kThreads) update_of(const P* p, const M* m, const M* v, float* u, int64_t n, Update f) {
  const int64_t at = (blockIdx.x * int64_t(kThreads) + threadIdx.x) * V;
  if (at + V <= n) {
    const Pack<P, V> weights = load_once<V>(p + at);
    const Pack<M, V> first = load_once<V>(m + at), second = load_once<V>(v + at);
    Pack<float, V> result;
#pragma unroll
    for (int i = 0; i < V; i++) result.v[i] = f(to_float(weights.v[i]), to_float(first.v[i]), to_float(second.v[i]));
    store_pack(u + at, result);
    return;
  }
  for (int64_t i = at; i < n; i++) u[i] = f(to_float(p[i]), to_float(m[i]), to_float(v[i]));
}

__global__ void ratio_kernel(const float* sums, const float* coefficients, float* ratios, int64_t parameters, int64_t ranks,
                             double minimum, double maximum) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i >= parameters) return;
  const float coefficient = *coefficients;
  double p = 0, u = 0;
  for (int64_t rank = 0; rank < ranks; rank++) {
    p = __dadd_rn(p, double(sums[2 * (rank * parameters + i)]));
    u = __dadd_rn(u, double(sums[2 * (rank * parameters + i) + 1]));
  }
  double ratio = 1;
  if (p > 0 && u > 0) {
    ratio = __ddiv_rn(__dsqrt_rn(p), __dsqrt_rn(u));
    ratio = ratio < minimum ? minimum : ratio > maximum ? maximum : ratio;
  }
  ratios[i] = coefficient != coefficient ? coefficient : float(ratio);
}

}  // namespace

KERNEL(lamb_moments, kFloats) {
  return update<2>(c, "lamb_moments",
                   Moments{constant(c.attrs[0]), constant(1 - c.attrs[0]), constant(c.attrs[1]), constant(1 - c.attrs[1])});
}

KERNEL(lamb_update, dtype_bit(F32) | dtype_bit(BF16)) {
  const View &p = c.in[0], &m = c.in[1], &v = c.in[2], &u = c.out[0];
  if (m.dtype != v.dtype) return error_text("lamb_update: expected moments of one dtype, got codes %d and %d", m.dtype, v.dtype);
  if (u.dtype != F32) return error_text("lamb_update: expected an f32 update, got dtype code %d", u.dtype);
  if (m.numel != p.numel || v.numel != p.numel || u.numel != p.numel)
    return error_text("lamb_update: expected tensors of %lld elements, as the weights", (long long)p.numel);
  if (p.numel == 0) return nullptr;
  const Update f = {constant(1 / c.attrs[0]), constant(1 / c.attrs[1]), constant(1 / std::sqrt(c.attrs[1])),
                    constant(c.attrs[2]), constant(c.attrs[4]), c.attrs[3] != 0};
  by_kept(p.dtype, [&](auto tp) {
    by_kept(m.dtype, [&](auto tm) {
      using P = typename decltype(tp)::type;
      using M = typename decltype(tm)::type;
      const auto run = [&](auto vector) {
        constexpr int V = decltype(vector)::value;
        const unsigned blocks = unsigned((p.numel + kThreads * V - 1) / (kThreads * V));
        update_of<V><<<blocks, kThreads, 0, c.stream>>>(p.as<const P>(), m.as<const M>(), v.as<const M>(), u.as<float>(), p.numel, f);
      };
      const bool aligned = is_aligned(p.data, 4 * sizeof(P)) && is_aligned(m.data, 4 * sizeof(M)) &&
                           is_aligned(v.data, 4 * sizeof(M)) && is_aligned(u.data, 16);
      if (aligned) run(std::integral_constant<int, 4>());
      else run(std::integral_constant<int, 1>());
    });
  });
  return nullptr;
}

KERNEL(lamb_ratio, dtype_bit(F32)) {
  const int64_t parameters = c.out[0].numel;
  if (parameters == 0) return nullptr;
  const unsigned blocks = unsigned((parameters + 127) / 128);
  ratio_kernel<<<blocks, 128, 0, c.stream>>>(c.in[0].as<const float>(), c.in[1].as<const float>(), c.out[0].as<float>(), parameters,
                                             c.in[0].numel / (2 * parameters), c.attrs[0], c.attrs[1]);
  return nullptr;
}

}  // namespace ds
