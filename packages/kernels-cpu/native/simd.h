// Vectors of VL floats for the instruction set that this file is compiled for, over GCC vector extensions: arithmetic,
// comparison and ?: are the language's own operators, so a kernel is written once for every level. Everything has
// internal linkage inside DS_ISA_NS: the same header is compiled three times into one addon.
//
// Bits: a value does not depend on where in an array it stands. Tails go through load(p, n) / store(p, x, n), that is
// through the same vector instructions as the body, and fmadd is one rounding where the level has FMA (AVX2, AVX-512,
// NEON) and two where it has not (SSE2) in vectors and scalars alike.
#pragma once
#include <cstring>

#include "kernel.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define DS_INLINE static inline __attribute__((always_inline))

namespace ds {
// Storage types; all arithmetic is in float. (Plain data, the same at every level.)
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

namespace DS_ISA_NS {

#if DS_ISA_LEVEL == 2
constexpr int VL = 16;
#elif DS_ISA_LEVEL == 1
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef double vd __attribute__((vector_size(VL * 4)));  // VL/2 doubles: one register
typedef uint16_t vh __attribute__((vector_size(VL * 2)));  // VL stored halves

// The dtype code of a storage type, and a call of F<T> with T chosen by a run-time code:
//   return by_float(c.in[0].dtype, [&](auto t) { using T = decltype(t); ... return nullptr; });
template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr DType value = F32; };
template <> struct dtype_of<f16> { static constexpr DType value = F16; };
template <> struct dtype_of<bf16> { static constexpr DType value = BF16; };

template <class F> DS_INLINE auto by_float(int32_t dtype, const F& f) {
  if (dtype == BF16) return f(bf16{});
  if (dtype == F16) return f(f16{});
  return f(float{});
}

// ---- lanes ---------------------------------------------------------------------------------------------
DS_INLINE vf splat(float x) { return x - vf{}; }
DS_INLINE vi splat_i(int32_t x) { return x - vi{}; }
DS_INLINE vi as_int(vf x) { return (vi)x; }
DS_INLINE vf as_float(vi x) { return (vf)x; }
DS_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
DS_INLINE vi lane_index() {
  vi v;
  for (int i = 0; i < VL; i++) v[i] = i;
  return v;
}

DS_INLINE float fmadd(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_NEON)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

#if DS_ISA_LEVEL == 2
// The zero-masked forms with a full mask: same instructions, and GCC 12 has no false "uninitialized" warning for them.
constexpr __mmask16 kAllLanes = 0xffff;
DS_INLINE vf fmadd(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
DS_INLINE vf vmax(vf a, vf b) { return _mm512_maskz_max_ps(kAllLanes, a, b); }
DS_INLINE vf vmin(vf a, vf b) { return _mm512_maskz_min_ps(kAllLanes, a, b); }
DS_INLINE vf vsqrt(vf a) { return _mm512_maskz_sqrt_ps(kAllLanes, a); }
DS_INLINE vf vround(vf a) { return _mm512_maskz_roundscale_ps(kAllLanes, a, 8); }
DS_INLINE vi to_int(vf a) { return (vi)_mm512_maskz_cvtps_epi32(kAllLanes, a); }
DS_INLINE vd fmadd(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
DS_INLINE vd low_double(vf x) {
  return _mm512_maskz_cvtps_pd(0xff, (__m256)__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7));
}
DS_INLINE vd high_double(vf x) { return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, x, 1)); }
#elif DS_ISA_LEVEL == 1
DS_INLINE vf fmadd(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
DS_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
DS_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
DS_INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
DS_INLINE vf vround(vf a) { return _mm256_round_ps(a, 8); }
DS_INLINE vi to_int(vf a) { return (vi)_mm256_cvtps_epi32(a); }
DS_INLINE vd fmadd(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
DS_INLINE vd low_double(vf x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
DS_INLINE vd high_double(vf x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
#elif defined(__SSE2__)
DS_INLINE vf fmadd(vf a, vf b, vf c) { return a * b + c; }
DS_INLINE vf vmax(vf a, vf b) { return _mm_max_ps(a, b); }
DS_INLINE vf vmin(vf a, vf b) { return _mm_min_ps(a, b); }
DS_INLINE vf vsqrt(vf a) { return _mm_sqrt_ps(a); }
DS_INLINE vi to_int(vf a) { return (vi)_mm_cvtps_epi32(a); }
// Adding 1.5 * 2^23 rounds |a| < 2^22 to an integer; larger values have no fraction worth keeping here.
DS_INLINE vf vround(vf a) { return (a + splat(12582912.0f)) - splat(12582912.0f); }
DS_INLINE vd fmadd(vd a, vd b, vd c) { return a * b + c; }
DS_INLINE vd low_double(vf x) { return _mm_cvtps_pd(x); }
DS_INLINE vd high_double(vf x) { return _mm_cvtps_pd(_mm_movehl_ps(x, x)); }
#elif defined(__ARM_NEON)
DS_INLINE vf fmadd(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
DS_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
DS_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
DS_INLINE vf vsqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
DS_INLINE vf vround(vf a) { return (vf)vrndnq_f32((float32x4_t)a); }
DS_INLINE vi to_int(vf a) { return (vi)vcvtnq_s32_f32((float32x4_t)a); }
DS_INLINE vd fmadd(vd a, vd b, vd c) { return (vd)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
DS_INLINE vd low_double(vf x) { return (vd)vcvt_f64_f32(vget_low_f32((float32x4_t)x)); }
DS_INLINE vd high_double(vf x) { return (vd)vcvt_high_f64_f32((float32x4_t)x); }
#else
DS_INLINE vf fmadd(vf a, vf b, vf c) { return a * b + c; }
DS_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
DS_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
DS_INLINE vf vsqrt(vf a) {
  for (int i = 0; i < VL; i++) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
DS_INLINE vf vround(vf a) { return (a + splat(12582912.0f)) - splat(12582912.0f); }
DS_INLINE vi to_int(vf a) { return __builtin_convertvector(vround(a), vi); }
DS_INLINE vd fmadd(vd a, vd b, vd c) { return a * b + c; }
DS_INLINE vd low_double(vf x) { return vd{x[0], x[1]}; }
DS_INLINE vd high_double(vf x) { return vd{x[2], x[3]}; }
#endif
// vmax and vmin give b when either is NaN (x86's rule): write vmax(running, x) and a NaN in x shows until the next one.

DS_INLINE vf vabs(vf x) { return as_float(as_int(x) & 0x7fffffff); }
DS_INLINE vf copy_sign(vf magnitude, vf sign) {
  return as_float((as_int(magnitude) & 0x7fffffff) | (as_int(sign) & (int32_t)0x80000000));
}

// Reductions pair lanes as a tree, i with i + VL/2 first: one fixed order per level.
typedef float f4 __attribute__((vector_size(16)));
#if DS_ISA_LEVEL >= 1
typedef float f8 __attribute__((vector_size(32)));
#endif
template <class F> DS_INLINE float reduce(vf x, const F& pair) {
#if DS_ISA_LEVEL == 2
  f8 half = pair((f8)__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7),
                 (f8)__builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15));
#elif DS_ISA_LEVEL == 1
  f8 half = x;
#endif
#if DS_ISA_LEVEL >= 1
  f4 quarter = pair((f4)__builtin_shufflevector(half, half, 0, 1, 2, 3), (f4)__builtin_shufflevector(half, half, 4, 5, 6, 7));
#else
  f4 quarter = x;
#endif
  quarter = pair(quarter, __builtin_shufflevector(quarter, quarter, 2, 3, 2, 3));
  return pair(quarter, __builtin_shufflevector(quarter, quarter, 1, 1, 1, 1))[0];
}
DS_INLINE float hsum(vf x) {
  return reduce(x, [](auto a, auto b) { return a + b; });
}
DS_INLINE float hmax(vf x) {
  return reduce(x, [](auto a, auto b) { return a > b ? a : b; });
}
DS_INLINE double hsum(vd x) {
  double lane[VL / 2];
  memcpy(lane, &x, sizeof lane);
  for (int half = VL / 4; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  return lane[0];
}

// ---- stored halves <-> float ---------------------------------------------------------------------------
// Sixteen-bit lanes to 32 and back (the compiler's own conversion of a whole vector takes several instructions more).
#if DS_ISA_LEVEL == 2
DS_INLINE vi extend(vh h) { return (vi)_mm512_maskz_cvtepu16_epi32(kAllLanes, (__m256i)h); }
DS_INLINE vh truncate(vu u) { return (vh)_mm512_maskz_cvtepi32_epi16(kAllLanes, (__m512i)u); }
#elif DS_ISA_LEVEL == 1
DS_INLINE vi extend(vh h) { return (vi)_mm256_cvtepu16_epi32((__m128i)h); }
DS_INLINE vh truncate(vu u) {
  __m256i packed = _mm256_packus_epi32((__m256i)(u & 0xffff), (__m256i)u);  // words 0-3 and 4-7 at quads 0 and 2
  return (vh)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
#else
DS_INLINE vi extend(vh h) { return __builtin_convertvector(h, vi); }
DS_INLINE vh truncate(vu u) { return __builtin_convertvector(u, vh); }
#endif

DS_INLINE vf widen(vh h, bf16) { return as_float(extend(h) << 16); }
// Round to nearest even; a NaN stays a (quiet) NaN, which the rounding addition alone could turn into infinity.
DS_INLINE vh narrow(vf x, bf16) {
  vu u = (vu)x;
  vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return truncate(x == x ? rounded : (u >> 16) | 0x40);
}

#if DS_ISA_LEVEL == 2
DS_INLINE vf widen(vh h, f16) { return _mm512_maskz_cvtph_ps(kAllLanes, (__m256i)h); }
DS_INLINE vh narrow(vf x, f16) { return (vh)_mm512_maskz_cvtps_ph(kAllLanes, x, _MM_FROUND_TO_NEAREST_INT); }
#elif DS_ISA_LEVEL == 1
DS_INLINE vf widen(vh h, f16) { return _mm256_cvtph_ps((__m128i)h); }
DS_INLINE vh narrow(vf x, f16) { return (vh)_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
#else
DS_INLINE vf widen(vh h, f16) {
  vi w = __builtin_convertvector(h, vi), magnitude = (w & 0x7fff) << 13;
  // 2^112 moves the exponent bias from 15 to 127 and makes subnormal halves normal floats, exactly.
  vi scaled = as_int(as_float(magnitude) * splat(0x1p112f));
  vi special = (w & 0x7c00) == 0x7c00;
  // Infinity stays; NaN becomes quiet, as F16C does.
  vi quiet = special & ((w & 0x3ff) != 0) & 0x400000;
  return as_float((special ? (magnitude | 0x7f800000 | quiet) : scaled) | ((w & 0x8000) << 16));
}
DS_INLINE vh narrow(vf x, f16) {
  vi u = as_int(x), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
  // Normal halves: round 13 bits away, move the bias. Subnormal: adding 0.5 puts the half's last bit at the float's.
  vi normal = (a + 0xfff + ((a >> 13) & 1) - (112 << 23)) >> 13;
  vi subnormal = as_int(as_float(a) + splat(0.5f)) - 0x3f000000;
  vi h = a < (113 << 23) ? subnormal : normal;
  h = a >= 0x477ff000 ? splat_i(0x7c00) : h;  // 65520 and above round to infinity
  h = a > 0x7f800000 ? (0x7e00 | ((a >> 13) & 0x3ff)) : h;
  return __builtin_convertvector(h | sign, vh);
}
#endif

DS_INLINE vf load(const float* p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
DS_INLINE void store(float* p, vf v) { memcpy(p, &v, sizeof v); }
template <class T> DS_INLINE vf load(const T* p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return widen(h, T{});
}
template <class T> DS_INLINE void store(T* p, vf v) {
  vh h = narrow(v, T{});
  memcpy(p, &h, sizeof h);
}

// First n lanes only, 0 <= n <= VL; the others read as +0 and are not written.
#if DS_ISA_LEVEL == 2
DS_INLINE vf load(const float* p, int64_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
DS_INLINE void store(float* p, vf v, int64_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
template <class T> DS_INLINE vf load(const T* p, int64_t n) {
  return widen((vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p), T{});
}
template <class T> DS_INLINE void store(T* p, vf v, int64_t n) {
  _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)narrow(v, T{}));
}
#else
template <class T> DS_INLINE vf load(const T* p, int64_t n) {
  T lane[VL] = {};
  memcpy(lane, p, (size_t)n * sizeof(T));
  return load(lane);
}
template <class T> DS_INLINE void store(T* p, vf v, int64_t n) {
  T lane[VL];
  store(lane, v);
  memcpy(p, lane, (size_t)n * sizeof(T));
}
#endif

DS_INLINE float load_scalar(const float* p) { return *p; }
template <class T> DS_INLINE float load_scalar(const T* p) { return load(p, 1)[0]; }
DS_INLINE void store_scalar(float* p, float x) { *p = x; }
template <class T> DS_INLINE void store_scalar(T* p, float x) { store(p, splat(x), 1); }

}  // namespace DS_ISA_NS
}  // namespace ds

#include "simd_math.h"
