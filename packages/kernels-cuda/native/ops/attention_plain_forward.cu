// A unit of its own, so that the kernels of attention compile side by side.
#include "flash/plain_forward.cuh"

namespace ds {
namespace flash {
template const char* plain_forward<float>(const Shape&, const float*, float*, float*, cudaStream_t);
template const char* plain_forward<bf16>(const Shape&, const bf16*, bf16*, float*, cudaStream_t);
template const char* plain_forward<f16>(const Shape&, const f16*, f16*, float*, cudaStream_t);
}  // namespace flash
}  // namespace ds
