// acc = alpha x + acc, one rounding in f32 and one to acc's dtype. x and acc may differ in dtype: bf16 gradients are summed over
// micro-batches in f32.
#include "../elementwise.cuh"

namespace ds {
namespace {

struct Accumulate {
  float alpha;
  __device__ __forceinline__ void operator()(float x, float acc, float& y, float&) const { y = fmaf(alpha, x, acc); }
};

}  // namespace

KERNEL(accumulate, kFloats) {
  const View &x = c.in[0], &acc = c.out[0];
  if (x.numel != acc.numel)
    return error_text("accumulate: x has %lld elements, acc %lld", (long long)x.numel, (long long)acc.numel);
  by_float(x.dtype, [&](auto tx) {
    by_float(acc.dtype, [&](auto ta) {
      using X = typename decltype(tx)::type;
      using A = typename decltype(ta)::type;
      map(c.stream, x.numel, Accumulate{float(c.attrs[0])}, x.as<const X>(), acc.as<const A>(), acc.as<A>(), kNone);
    });
  });
  return nullptr;
}

}  // namespace ds
