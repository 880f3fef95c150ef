// y = ids + by, of i32
#include "../device.cuh"

namespace ds {
namespace {

__global__ void __launch_bounds__(256) shift_ids_kernel(int64_t n, int by, const int* ids, int* y) {
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < n; i += int64_t(gridDim.x) * 256) y[i] = ids[i] + by;
}

}  // namespace

KERNEL(shift_ids, kFloats) {
  const View &ids = c.in[0], &y = c.out[0];
  if (ids.dtype != I32 || y.dtype != I32 || y.numel != ids.numel) return error_text("shift_ids: expected i32 tensors of one length");
  if (ids.numel > 0)
    shift_ids_kernel<<<grid_for(ids.numel, 256), 256, 0, c.stream>>>(ids.numel, int(c.attrs[0]), ids.as<const int>(), y.as<int>());
  return nullptr;
}

}  // namespace ds
