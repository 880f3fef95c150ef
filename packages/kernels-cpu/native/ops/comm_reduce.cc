// The arithmetic of all-reduce and reduce-scatter. Both come here with the same sources in the same order, whatever
// carried the data, and so give the same bits.
#include "../comm/reduce.h"
#include "../simd.h"

namespace ds {
namespace DS_ISA_NS {
namespace {

using comm::Reduction;

// A NaN on any rank stays: without it a bad gradient could hide from a max.
struct Sum {
  static vf apply(vf acc, vf x) { return acc + x; }
  // Integer sums wrap; __builtin_add_overflow makes that defined.
  template <class T> static T scalar(T acc, T x) {
    __builtin_add_overflow(acc, x, &acc);
    return acc;
  }
};
struct Max {
  static vf apply(vf acc, vf x) { return (acc > x) | (acc != acc) ? acc : x; }
  template <class T> static T scalar(T acc, T x) { return acc > x ? acc : x; }
};
struct Min {
  static vf apply(vf acc, vf x) { return (acc < x) | (acc != acc) ? acc : x; }
  template <class T> static T scalar(T acc, T x) { return acc < x ? acc : x; }
};

template <class Op, class T> void reduce_float(const Reduction& r, float scale) {
  constexpr int kUnroll = 4;
  const T* const* sources = reinterpret_cast<const T* const*>(r.sources);
  T* const* targets = reinterpret_cast<T* const*>(r.targets);
  const vf factor = splat(scale);
  int64_t i = 0;
  for (; i + kUnroll * VL <= r.count; i += kUnroll * VL) {
    vf acc[kUnroll];
    for (int u = 0; u < kUnroll; u++) acc[u] = load(sources[0] + i + u * VL);
    for (int s = 1; s < r.n_sources; s++)
      for (int u = 0; u < kUnroll; u++) acc[u] = Op::apply(acc[u], load(sources[s] + i + u * VL));
    for (int t = 0; t < r.n_targets; t++)
      for (int u = 0; u < kUnroll; u++) store(targets[t] + i + u * VL, acc[u] * factor);
  }
  for (; i < r.count; i += VL) {
    int64_t n = r.count - i < VL ? r.count - i : VL;
    vf acc = load(sources[0] + i, n);
    for (int s = 1; s < r.n_sources; s++) acc = Op::apply(acc, load(sources[s] + i, n));
    for (int t = 0; t < r.n_targets; t++) store(targets[t] + i, acc * factor, n);
  }
}

template <class Op, class T> void reduce_integer(const Reduction& r) {
  const T* const* sources = reinterpret_cast<const T* const*>(r.sources);
  for (int64_t i = 0; i < r.count; i++) {
    T acc = sources[0][i];
    for (int s = 1; s < r.n_sources; s++) acc = Op::scalar(acc, sources[s][i]);
    for (int t = 0; t < r.n_targets; t++) static_cast<T*>(r.targets[t])[i] = acc;
  }
}

template <class Op> void reduce_as(const Reduction& r, float scale) {
  switch (r.dtype) {
    case F32: return reduce_float<Op, float>(r, scale);
    case F16: return reduce_float<Op, f16>(r, scale);
    case BF16: return reduce_float<Op, bf16>(r, scale);
    case I32: return reduce_integer<Op, int32_t>(r);
    case I64: return reduce_integer<Op, int64_t>(r);
    case I8: return reduce_integer<Op, int8_t>(r);
    default: return reduce_integer<Op, uint8_t>(r);
  }
}

void reduce_range(const Reduction& r) {
  if (r.op == comm::kMax) return reduce_as<Max>(r, 1.0f);
  if (r.op == comm::kMin) return reduce_as<Min>(r, 1.0f);
  reduce_as<Sum>(r, r.op == comm::kMean ? 1.0f / static_cast<float>(r.n_sources) : 1.0f);
}

struct Register {
  Register() { comm::register_reduce(DS_ISA_LEVEL, reduce_range); }
} registered;

}  // namespace
}  // namespace DS_ISA_NS
}  // namespace ds
