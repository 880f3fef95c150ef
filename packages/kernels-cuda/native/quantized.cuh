// Formats of frozen weights: blocks of 64 elements share a scale, their largest magnitude (core/src/ops/quantized-format.ts).
#pragma once
#include <cstdint>

namespace ds {

enum QuantizedFormat { kInt8 = 0, kNf4 = 1 };

constexpr int64_t kQuantizedBlock = 64;

// NormalFloat-4 (Dettmers et al., arXiv:2305.14314, appendix E).
constexpr float kNf4Values[16] = {-1.0f,
                                  -0.6961928009986877f,
                                  -0.5250730514526367f,
                                  -0.39491748809814453f,
                                  -0.28444138169288635f,
                                  -0.18477343022823334f,
                                  -0.09105003625154495f,
                                  0.0f,
                                  0.07958029955625534f,
                                  0.16093020141124725f,
                                  0.24611230194568634f,
                                  0.33791524171829224f,
                                  0.44070982933044434f,
                                  0.5626170039176941f,
                                  0.7229568362236023f,
                                  1.0f};

// Halfway between a value and the next. In double first, as core does it: then it is rounded once.
constexpr float nf4_boundary(int i) { return (float)(((double)kNf4Values[i] + (double)kNf4Values[i + 1]) / 2); }

constexpr int64_t codes_of(int format, int64_t elements) { return format == kInt8 ? elements : (elements + 1) / 2; }
constexpr int64_t scales_of(int64_t elements) { return (elements + kQuantizedBlock - 1) / kQuantizedBlock; }

}  // namespace ds
