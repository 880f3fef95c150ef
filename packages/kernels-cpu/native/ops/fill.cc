// fill(value) -> y: every element is `value`, rounded or truncated to the dtype.
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {
namespace {

constexpr int64_t kGrain = 256 << 10;  // bytes

// Fills in pieces of 64 bytes that hold `size`-byte elements.
void spread(const Call& c, const void* element, int64_t size) {
  char pattern[64];
  for (int64_t i = 0; i < 64; i += size) memcpy(pattern + i, element, (size_t)size);
  char* y = c.out[0].as<char>();
  parallel(c.out[0].numel * size, kGrain, [&](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + 64 <= end; i += 64) memcpy(y + i, pattern, 64);
    memcpy(y + i, pattern, (size_t)(end - i));
  });
}

template <class T> void fill_with(const Call& c, T element) { spread(c, &element, sizeof element); }

}  // namespace

KERNEL(fill, kFloats) {
  const double value = c.attrs[0];
  switch (c.out[0].dtype) {
    case F32: fill_with(c, (float)value); break;
    case F16:
    case BF16:
      by_float(c.out[0].dtype, [&](auto element) {
        store_scalar(&element, (float)value);
        fill_with(c, element);
      });
      break;
    case I32: fill_with(c, (int32_t)value); break;
    case I64: fill_with(c, (int64_t)value); break;
    case I8: fill_with(c, (int8_t)value); break;
    case U8: fill_with(c, (uint8_t)value); break;
    case BOOL: fill_with(c, (uint8_t)(value != 0)); break;
    default: return error_text("no dtype has code %d", c.out[0].dtype);
  }
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
