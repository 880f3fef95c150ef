// The values of dynamic 8-bit codes, as core/src/ops/dynamic-code.ts defines them, and how to find the code of a value.
#pragma once
#include <cstdint>

namespace ds {

constexpr int kCodeBlock = 256;  // elements that share a scale

struct DynamicCode {
  float value[256];
  float boundary[256];  // code i stands for (boundary[i - 1], boundary[i]]; the last is not read
  int zero;             // the code of 0
};

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
    for (int i = count - 1; i >= 0; i--) code.value[at++] = float(-magnitude[i]);
  code.zero = at;
  code.value[at++] = 0;
  for (int i = 0; i < count; i++) code.value[at++] = float(magnitude[i]);
  code.value[at] = 1;
  for (int i = 0; i < 255; i++) code.boundary[i] = float((double(code.value[i]) + double(code.value[i + 1])) / 2);
  return code;
}

}  // namespace ds
