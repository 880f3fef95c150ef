// y = x in y's dtype, any pair. Floats round to nearest even; float to integer truncates and saturates (NaN gives 0);
// integer to a narrower integer keeps the low bits; anything to bool is x != 0.
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

struct boolean {
  uint8_t value;
};

template <class F> DS_INLINE void by_dtype(int32_t dtype, const F& f) {
  switch (dtype) {
    case I32: return f(int32_t{});
    case I64: return f(int64_t{});
    case U8: return f(uint8_t{});
    case I8: return f(int8_t{});
    case BOOL: return f(boolean{});
    case BF16: return f(bf16{});
    case F16: return f(f16{});
    default: return f(float{});
  }
}

template <class T> struct is_float { static constexpr bool value = false; };
template <> struct is_float<float> { static constexpr bool value = true; };
template <> struct is_float<f16> { static constexpr bool value = true; };
template <> struct is_float<bf16> { static constexpr bool value = true; };

template <class T> DS_INLINE T integer(T x) { return x; }
DS_INLINE uint8_t integer(boolean x) { return x.value != 0; }

// The bounds are powers of two or small, so exact as floats; `high` itself is out of range for the wide types.
template <class D> DS_INLINE D saturate(float x, float low, float high, D min, D max) {
  return x != x ? (D)0 : x <= low ? min : x >= high ? max : (D)x;
}
DS_INLINE void set(int32_t& y, float x) { y = saturate<int32_t>(x, -0x1p31f, 0x1p31f, INT32_MIN, INT32_MAX); }
DS_INLINE void set(int64_t& y, float x) { y = saturate<int64_t>(x, -0x1p63f, 0x1p63f, INT64_MIN, INT64_MAX); }
DS_INLINE void set(uint8_t& y, float x) { y = saturate<uint8_t>(x, 0.0f, 255.0f, 0, 255); }
DS_INLINE void set(int8_t& y, float x) { y = saturate<int8_t>(x, -128.0f, 127.0f, -128, 127); }
DS_INLINE void set(boolean& y, float x) { y.value = x != 0; }
template <class D, class S> DS_INLINE void set(D& y, S x) { y = (D)x; }
template <class S> DS_INLINE void set(boolean& y, S x) { y.value = x != 0; }

// One vector's worth: n elements from x to y, n <= VL.
template <class Y, class X> DS_INLINE void convert(Y* y, const X* x, int64_t n) {
  if constexpr (is_float<X>::value) {
    float lane[VL];
    store(lane, load(x, n));
    for (int64_t i = 0; i < n; i++) set(y[i], lane[i]);
  } else if constexpr (is_float<Y>::value) {
    float lane[VL] = {};
    for (int64_t i = 0; i < n; i++) lane[i] = (float)integer(x[i]);
    store(y, load(lane), n);
  } else {
    for (int64_t i = 0; i < n; i++) set(y[i], integer(x[i]));
  }
}

KERNEL(cast, kAnyDType) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.numel != y.numel)
    return error_text("cast: x has %lld elements, y %lld", (long long)x.numel, (long long)y.numel);
  by_dtype(x.dtype, [&](auto tx) {
    by_dtype(y.dtype, [&](auto ty) {
      using X = decltype(tx);
      using Y = decltype(ty);
      const X* from = x.as<const X>();
      Y* to = y.as<Y>();
      if constexpr (is_float<X>::value && is_float<Y>::value) {
        map(x.numel, to, [](vf v) { return v; }, from);
      } else {
        parallel(x.numel, kGrain, [&](int64_t begin, int64_t end, int) {
          int64_t i = begin;
          for (; i + VL <= end; i += VL) convert(to + i, from + i, VL);
          if (i < end) convert(to + i, from + i, end - i);
        });
      }
    });
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
