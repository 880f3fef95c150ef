// y = ids + by, of i32
#include "../elementwise.h"

namespace ds {
namespace DS_ISA_NS {

KERNEL(shift_ids, kFloats) {
  const View &ids = c.in[0], &y = c.out[0];
  if (ids.dtype != I32 || y.dtype != I32 || y.numel != ids.numel) return error_text("shift_ids: expected i32 tensors of one length");
  const int32_t by = (int32_t)c.attrs[0];
  parallel(ids.numel, kGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) y.as<int32_t>()[i] = ids.as<const int32_t>()[i] + by;
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
