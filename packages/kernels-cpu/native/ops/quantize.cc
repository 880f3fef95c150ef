// Codes and scales of n elements in blocks of 64, and back: scale = max |x| of the block,
//   int8  code = round(x / scale 127), value = code / 127 scale;   nf4  code = nearest of 16 values to x / scale, two in a byte
#include "../quantized.h"

#include "../bytes.h"

namespace ds {
namespace DS_ISA_NS {

static_assert(kQuantizedBlock % VL == 0, "a block is whole vectors");
constexpr int64_t kBlocksInTask = 512;

DS_INLINE vi int8_code(vf x) { return to_int(x * splat(127.0f)); }

DS_INLINE vi nf4_code(vf x) {
  vi code = {};
  for (int i = 0; i < 15; i++) code -= (vi)(x > splat(nf4_boundary(i)));  // comparisons are -1 where they hold
  return code;
}

// A block of m elements, its codes one in a byte; what a short one lacks counts as zeros.
template <int format, class T> DS_INLINE float codes_of_block(const T* x, int64_t m, int8_t* codes) {
  float block[kQuantizedBlock] = {};
  vf top = {};
  for_vectors(0, m, [&](int64_t i, auto lanes) {
    const vf values = load(x + i, lanes);
    store(block + i, values, lanes);
    top = vmax(vabs(keep(values, lanes)), top);
  });
  const float largest = hmax(top);
  const vf divisor = splat(largest == 0 ? 1.0f : largest);
  for (int64_t i = 0; i < kQuantizedBlock; i += VL) {
    const vf scaled = load(block + i) / divisor;
    store_bytes(codes + i, format == kInt8 ? int8_code(scaled) : nf4_code(scaled));
  }
  return largest;
}

static const char* check(const char* op, int format, int64_t n, const View& codes, const View& scales) {
  const int32_t dtype = format == kInt8 ? I8 : U8;
  if (codes.dtype == dtype && codes.numel == codes_of(format, n) && scales.dtype == F32 && scales.numel == scales_of(n)) return nullptr;
  return error_text("%s: %lld elements have %lld codes of dtype code %d and %lld f32 scales, got %lld of code %d and %lld", op, (long long)n,
                    (long long)codes_of(format, n), dtype, (long long)scales_of(n), (long long)codes.numel, codes.dtype,
                    (long long)scales.numel);
}

template <int format, class T> static void quantize(int64_t n, const T* x, int8_t* codes, float* scales) {
  parallel(scales_of(n), kBlocksInTask, [&](int64_t begin, int64_t end, int) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t at = b * kQuantizedBlock, m = n - at < kQuantizedBlock ? n - at : kQuantizedBlock;
      int8_t block[kQuantizedBlock];
      scales[b] = codes_of_block<format>(x + at, m, block);
      if (format == kInt8)
        memcpy(codes + at, block, (size_t)m);
      else
        for (int64_t i = 0; i < (m + 1) / 2; i++) codes[at / 2 + i] = (int8_t)(block[2 * i] << 4 | block[2 * i + 1]);
    }
  });
}

KERNEL(quantize, kFloats) {
  const View& x = c.in[0];
  const int format = (int)c.attrs[0];
  if (const char* error = check("quantize", format, x.numel, c.out[0], c.out[1])) return error;
  return by_float(x.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    const auto run = format == kInt8 ? quantize<kInt8, T> : quantize<kNf4, T>;
    run(x.numel, x.as<const T>(), c.out[0].as<int8_t>(), c.out[1].as<float>());
    return nullptr;
  });
}

template <class T> static void from_int8(int64_t n, const int8_t* codes, const float* scales, T* y) {
  parallel(scales_of(n), kBlocksInTask, [&](int64_t begin, int64_t end, int) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t at = b * kQuantizedBlock, m = n - at < kQuantizedBlock ? n - at : kQuantizedBlock;
      int8_t last[kQuantizedBlock] = {};  // vectors of bytes do not end early
      const int8_t* from = codes + at;
      if (m < kQuantizedBlock) from = (const int8_t*)memcpy(last, from, (size_t)m);
      const vf scale = splat(scales[b]);
      for_vectors(0, m, [&](int64_t i, auto lanes) {
        store(y + at + i, to_float(load_bytes(from + i)) * splat(1.0f / 127) * scale, lanes);
      });
    }
  });
}

template <class T> static void from_nf4(int64_t n, const uint8_t* codes, const float* scales, T* y) {
  const Table16 values = Table16::of(kNf4Values);
  parallel(scales_of(n), kBlocksInTask, [&](int64_t begin, int64_t end, int) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t at = b * kQuantizedBlock, m = n - at < kQuantizedBlock ? n - at : kQuantizedBlock;
      uint8_t block[kQuantizedBlock] = {};
      for (int64_t i = 0; i < (m + 1) / 2; i++) {
        const uint8_t two = codes[at / 2 + i];
        block[2 * i] = two >> 4, block[2 * i + 1] = two & 15;
      }
      const vf scale = splat(scales[b]);
      for_vectors(0, m, [&](int64_t i, auto lanes) { store(y + at + i, values(load_bytes(block + i)) * scale, lanes); });
    }
  });
}

KERNEL(dequantize, kFloats) {
  const View &codes = c.in[0], &scales = c.in[1], &y = c.out[0];
  const int format = (int)c.attrs[0];
  if (const char* error = check("dequantize", format, y.numel, codes, scales)) return error;
  return by_float(y.dtype, [&](auto t) -> const char* {
    using T = decltype(t);
    if (format == kInt8) from_int8(y.numel, codes.as<const int8_t>(), scales.as<const float>(), y.as<T>());
    else from_nf4(y.numel, codes.as<const uint8_t>(), scales.as<const float>(), y.as<T>());
    return nullptr;
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
