// copy(x) -> y, the same dtype and number of elements.
#include "simd.h"

namespace ds {
namespace DS_ISA_NS {
namespace {

constexpr int64_t kGrain = 1 << 20;  // bytes
constexpr int64_t kSize[] = {4, 2, 2, 4, 8, 1, 1, 1};  // by dtype code

}  // namespace

KERNEL(copy, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.dtype != y.dtype || x.numel != y.numel)
    return error_text("expected an output of dtype code %d with %lld elements, got dtype code %d with %lld", x.dtype,
                      (long long)x.numel, y.dtype, (long long)y.numel);
  parallel(x.numel * kSize[x.dtype], kGrain, [&](int64_t begin, int64_t end, int) {
    memcpy(y.as<char>() + begin, x.as<char>() + begin, (size_t)(end - begin));
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
