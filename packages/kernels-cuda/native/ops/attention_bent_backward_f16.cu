// A unit of its own, so that the kernels of attention compile side by side.
#include "flash/launch_backward.cuh"

namespace ds {
namespace flash {
template const char* bent_backward<f16>(const Shape&, const f16*, const f16*, const Statistics&, f16*, cudaStream_t);
}
}  // namespace ds
