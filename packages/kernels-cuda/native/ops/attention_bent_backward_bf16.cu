// A unit of its own, so that the kernels of attention compile side by side.
#include "flash/launch_backward.cuh"

namespace ds {
namespace flash {
template const char* bent_backward<bf16>(const Shape&, const bf16*, const bf16*, const Statistics&, bf16*, cudaStream_t);
}
}  // namespace ds
