// A unit of its own, so that the kernels of attention compile side by side.
#include "flash/launch_forward.cuh"

namespace ds {
namespace flash {
template const char* bent_forward<f16>(const Shape&, const f16*, f16*, float*, cudaStream_t);
}
}  // namespace ds
