// The momentum of Muon (Jordan et al., 2024) over a flat range, all f32:
//   m = momentum m + (1 - momentum) g,  u = m, or momentum m + (1 - momentum) g (Nesterov)      with g = grad coefficient
// A NaN coefficient leaves m as it is, and u is m.
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(muon_momentum, kFloats) {
  const View &grad = c.in[0], &buffer = c.out[0], &update = c.out[1];
  if (buffer.numel != grad.numel || update.numel != grad.numel)
    return error_text("muon_momentum: expected outputs as long as the gradient, %lld elements, got %lld and %lld",
                      (long long)grad.numel, (long long)buffer.numel, (long long)update.numel);
  if (buffer.dtype != F32 && buffer.dtype != BF16)
    return error_text("muon_momentum: expected an f32 or bf16 momentum, got dtype code %d", buffer.dtype);
  const float scale = *c.in[1].as<const float>();
  const bool overflow = scale != scale, nesterov = c.attrs[1] != 0 && !overflow;
  const vf coefficient = splat(scale), share = constant(1 - c.attrs[0]), keep = constant(c.attrs[0]);
  by_float(grad.dtype, [&](auto tg) {
    by_kept(buffer.dtype, [&](auto tm) {
      by_float(update.dtype, [&](auto tu) {
        const auto* g = grad.as<const decltype(tg)>();
        auto* m = buffer.as<decltype(tm)>();
        auto* u = update.as<decltype(tu)>();
        parallel(grad.numel, kGrain, [&](int64_t begin, int64_t end, int) {
          for_vectors(begin, end, [&](int64_t i, auto lanes) {
            vf mean = load(m + i, lanes);
            if (!overflow) {
              const vf part = share * (load(g + i, lanes) * coefficient);
              mean = fused(keep, mean, part);
              store(m + i, mean, lanes);
              if (nesterov) mean = fused(keep, mean, part);
            }
            store(u + i, mean, lanes);
          });
        });
      });
    });
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
