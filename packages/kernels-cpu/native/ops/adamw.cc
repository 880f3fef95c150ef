// One Adam step over a flat range (Kingma and Ba, 2015; decoupled weight decay: Loshchilov and Hutter, 2019), all f32:
//   g = grad coefficient (+ weightDecay p when not decoupled)
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//   p = p (1 - lr weightDecay) when decoupled,  p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps)
// Fused multiply-adds are placed explicitly and every element goes through the same instructions wherever it stands, so
// that ZeRO's slices of the range give the bits of the whole. A NaN coefficient leaves everything as it was.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

struct Adam {
  vf coefficient, weight_decay, one_minus_beta1, beta1, one_minus_beta2, beta2, root_bias2, eps, decay, minus_step;
};

template <bool decoupled> DS_INLINE void adam(const Adam& a, vf grad, vf& p, vf& m, vf& v) {
  vf g = grad * a.coefficient;
  if (!decoupled) g = fused(a.weight_decay, p, g);
  m = fused(a.one_minus_beta1, g, a.beta1 * m);
  v = fused(a.one_minus_beta2 * g, g, a.beta2 * v);
  vf denominator = vsqrt(v) * a.root_bias2 + a.eps;
  if (decoupled) p = p * a.decay;
  p = fused(a.minus_step, m / denominator, p);
}

// Stores that bypass the cache: past its size the lines would be evicted before they are read again.
#if DS_ISA_LEVEL == 2
DS_INLINE void stream(float* p, vf v) { _mm512_stream_ps(p, v); }
#elif DS_ISA_LEVEL == 1
DS_INLINE void stream(float* p, vf v) { _mm256_stream_ps(p, v); }
#elif defined(__SSE2__)
DS_INLINE void stream(float* p, vf v) { _mm_stream_ps(p, v); }
#else
DS_INLINE void stream(float* p, vf v) { store(p, v); }
#endif
DS_INLINE void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

constexpr int64_t kStreamFrom = 1 << 20;  // elements: 12 MB of state

struct NoCopy {};
DS_INLINE void store_copy(NoCopy*, vf, All) {}
DS_INLINE void store_copy(NoCopy*, vf, int64_t) {}
template <class L, class N> DS_INLINE void store_copy(L* low, vf p, N n) { store(low, p, n); }
DS_INLINE NoCopy* at(NoCopy*, int64_t) { return nullptr; }
template <class L> DS_INLINE L* at(L* low, int64_t i) { return low + i; }

template <bool decoupled, class G, class L>
static void adam_range(const Adam& a, int64_t n, const G* grad, float* master, float* m, float* v, L* low) {
  // Streaming needs aligned addresses: possible when the three arrays are misaligned by the same amount.
  constexpr uintptr_t kBytes = sizeof(vf);
  const uintptr_t offset = (uintptr_t)master % kBytes;
  const bool streaming = n >= kStreamFrom && offset % sizeof(float) == 0 && (uintptr_t)m % kBytes == offset &&
                         (uintptr_t)v % kBytes == offset;
  const int64_t peel = offset == 0 ? 0 : (int64_t)((kBytes - offset) / sizeof(float));
  auto step = [&](int64_t i, auto lanes) {
    vf p = load(master + i, lanes), mi = load(m + i, lanes), vi = load(v + i, lanes);
    adam<decoupled>(a, load(grad + i, lanes), p, mi, vi);
    store(master + i, p, lanes);
    store(m + i, mi, lanes);
    store(v + i, vi, lanes);
    store_copy(at(low, i), p, lanes);
  };
  parallel(n, kGrain, [&](int64_t begin, int64_t end, int) {
    if (!streaming) return for_vectors(begin, end, step);
    // kGrain is a multiple of VL, so every chunk peels alike.
    int64_t i = begin + peel;
    for_vectors(begin, i < end ? i : end, step);
    for (; i + VL <= end; i += VL) {
      vf p = load(master + i), mi = load(m + i), vi = load(v + i);
      adam<decoupled>(a, load(grad + i), p, mi, vi);
      stream(master + i, p);
      stream(m + i, mi);
      stream(v + i, vi);
      store_copy(at(low, i), p, All{});
    }
    if (i < end) step(i, end - i);
    stream_fence();
  });
}

KERNEL(adamw, kFloats) {
  const View &grad = c.in[0], &master = c.out[0], &m = c.out[1], &v = c.out[2];
  const float coefficient = *c.in[1].as<const float>();
  if (coefficient != coefficient) return nullptr;
  const bool has_low = c.n_out > 3;
  if (master.numel != grad.numel || m.numel != grad.numel || v.numel != grad.numel ||
      (has_low && c.out[3].numel != grad.numel))
    return error_text("adamw: grad, master, m, v and the low-precision copy must have equal lengths; grad has %lld, "
                      "master %lld, m %lld, v %lld", (long long)grad.numel, (long long)master.numel,
                      (long long)m.numel, (long long)v.numel);
  if (master.dtype != F32 || m.dtype != F32 || v.dtype != F32) return "adamw: master, m and v must be f32";
  const double lr = c.attrs[0], beta1 = c.attrs[1], beta2 = c.attrs[2], eps = c.attrs[3], decay = c.attrs[4],
               bias1 = c.attrs[5], bias2 = c.attrs[6];
  const bool decoupled = c.attrs[7] != 0;
  auto constant = [](double x) { return splat((float)x); };
  const Adam a = {splat(coefficient),   constant(decay), constant(1 - beta1),
                  constant(beta1),      constant(1 - beta2), constant(beta2),
                  constant(1 / __builtin_sqrt(bias2)), constant(eps), constant(1 - lr * decay), constant(-(lr / bias1))};
  by_float(grad.dtype, [&](auto tg) {
    auto run = [&](auto* low) {
      const auto* g = grad.as<const decltype(tg)>();
      if (decoupled)
        adam_range<true>(a, grad.numel, g, master.as<float>(), m.as<float>(), v.as<float>(), low);
      else
        adam_range<false>(a, grad.numel, g, master.as<float>(), m.as<float>(), v.as<float>(), low);
    };
    if (!has_low) return run((NoCopy*)nullptr);
    by_float(c.out[3].dtype, [&](auto tl) { run(c.out[3].as<decltype(tl)>()); });
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
