// The values of dynamic 8-bit codes, as core/src/ops/dynamic-code.ts defines them, and how to find the code of a value.
#pragma once
#include <cstdint>
#include <cstring>

namespace ds {

constexpr int64_t kCodeBlock = 256;  // elements that share a scale

// Any x is code first[b] or the next, b being its bucket: the leading 16 bits of its float. Buckets are narrower than the
// gaps between codes, so one comparison with boundary[first[b]] tells which.
constexpr int kBucketBits = 16;
// Magnitudes below 2^-23 are nearer to 0 than to the smallest value, 1e-6 0.325; the largest is 1.
constexpr int kLowestBucket = (127 - 23) << 7, kBuckets = (127 << 7) + 1 - kLowestBucket;

struct DynamicCode {
  float value[256];
  float boundary[256];       // code i stands for (boundary[i - 1], boundary[i]]; the last is infinite
  int32_t first[kBuckets];   // of positive x
  int zero;                  // the code of 0
};

constexpr double power_of_two(int e) {
  double result = 1;
  for (; e < 0; e++) result /= 2;
  return result;
}

constexpr DynamicCode dynamic_code(bool has_sign) {
  constexpr int kDecades = 7;
  DynamicCode code = {};
  double magnitude[256] = {};
  int count = 0;
  for (int decade = 0; decade < kDecades; decade++) {
    double unit = 1;
    for (int i = decade + 1; i < kDecades; i++) unit *= 10;
    const int parts = 1 << (has_sign ? decade : decade + 1);
    for (int i = 0; i < parts; i++) magnitude[count++] = (0.1 + 0.9 * (i + 0.5) / parts) / unit;
  }
  int at = 0;
  if (has_sign)
    for (int i = count - 1; i >= 0; i--) code.value[at++] = (float)-magnitude[i];
  code.zero = at;
  code.value[at++] = 0;
  for (int i = 0; i < count; i++) code.value[at++] = (float)magnitude[i];
  code.value[at] = 1;
  for (int i = 0; i < 255; i++) code.boundary[i] = (float)(((double)code.value[i] + (double)code.value[i + 1]) / 2);
  code.boundary[255] = __builtin_huge_valf();
  int of = code.zero;
  for (int b = 0; b < kBuckets; b++) {
    // The bucket's smallest magnitude: exponent and seven bits of mantissa.
    const int bits = b + kLowestBucket, exponent = (bits >> 7) - 127;
    const double smallest = power_of_two(exponent) * (1 + (bits & 127) / 128.0);
    while (smallest > code.boundary[of]) of++;
    code.first[b] = of;
  }
  return code;
}

}  // namespace ds
