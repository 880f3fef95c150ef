// A unit of its own, so that the kernels of attention compile side by side.
#include "flash/plain_backward.cuh"

namespace ds {
namespace flash {
template const char* plain_backward<float>(const Shape&, const float*, const float*, const Statistics&, float*, cudaStream_t);
template const char* plain_backward<bf16>(const Shape&, const bf16*, const bf16*, const Statistics&, bf16*, cudaStream_t);
template const char* plain_backward<f16>(const Shape&, const f16*, const f16*, const Statistics&, f16*, cudaStream_t);
}  // namespace flash
}  // namespace ds
