// Vectors of bytes as integers, and of entries of tables.
#pragma once
#include "lanes.h"

namespace ds {
namespace DS_ISA_NS {

#if DS_ISA_LEVEL == 2
DS_INLINE vi gather(const int32_t* table, vi at) { return (vi)_mm512_mask_i32gather_epi32(__m512i{}, kAllLanes, (__m512i)at, table, 4); }
DS_INLINE vf gather(const float* table, vi at) { return _mm512_mask_i32gather_ps(vf{}, kAllLanes, (__m512i)at, table, 4); }
DS_INLINE vi load_bytes(const uint8_t* from) { return (vi)_mm512_maskz_cvtepu8_epi32(kAllLanes, _mm_loadu_si128((const __m128i*)from)); }
DS_INLINE vi load_bytes(const int8_t* from) { return (vi)_mm512_maskz_cvtepi8_epi32(kAllLanes, _mm_loadu_si128((const __m128i*)from)); }
template <class T> DS_INLINE void store_bytes(T* to, vi x) {
  _mm_storeu_si128((__m128i*)to, _mm512_maskz_cvtepi32_epi8(kAllLanes, (__m512i)x));
}
#else
#if DS_ISA_LEVEL == 1
DS_INLINE vi gather(const int32_t* table, vi at) { return (vi)_mm256_i32gather_epi32(table, (__m256i)at, 4); }
DS_INLINE vf gather(const float* table, vi at) { return _mm256_i32gather_ps(table, (__m256i)at, 4); }
DS_INLINE vi load_bytes(const uint8_t* from) { return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from)); }
DS_INLINE vi load_bytes(const int8_t* from) { return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)); }
#else
DS_INLINE vi gather(const int32_t* table, vi at) {
  vi x;
  for (int i = 0; i < VL; i++) x[i] = table[at[i]];
  return x;
}
DS_INLINE vf gather(const float* table, vi at) {
  vf x;
  for (int i = 0; i < VL; i++) x[i] = table[at[i]];
  return x;
}
template <class T> DS_INLINE vi load_bytes(const T* from) {
  vi x;
  for (int i = 0; i < VL; i++) x[i] = from[i];
  return x;
}
#endif
template <class T> DS_INLINE void store_bytes(T* to, vi x) {
  for (int i = 0; i < VL; i++) to[i] = (T)x[i];
}
#endif

// Entries of a table of 16.
struct Table16 {
#if DS_ISA_LEVEL == 2
  vf all;
  DS_INLINE Table16 of(const float* values) { return {load(values)}; }
  __attribute__((always_inline)) vf operator()(vi at) const { return _mm512_maskz_permutexvar_ps(kAllLanes, (__m512i)at, all); }
#elif DS_ISA_LEVEL == 1
  vf low, high;
  DS_INLINE Table16 of(const float* values) { return {load(values), load(values + 8)}; }
  __attribute__((always_inline)) vf operator()(vi at) const {
    const vf bit3 = as_float(at << 28);  // as a sign
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, (__m256i)at), _mm256_permutevar8x32_ps(high, (__m256i)at), bit3);
  }
#else
  const float* values;
  DS_INLINE Table16 of(const float* values) { return {values}; }
  __attribute__((always_inline)) vf operator()(vi at) const { return gather(values, at); }
#endif
};

}  // namespace DS_ISA_NS
}  // namespace ds
