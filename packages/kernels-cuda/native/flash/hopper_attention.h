// The backward of attention on Hopper's own instructions (compute capability 9.0).
#pragma once
#include "flash/shape.h"

namespace ds {

// False: not served (another device, shape or alignment), nothing done; take another kernel. True: done, or *error says why not.
// `lse` is the forward's, natural logarithms [batch, heads, tokens].
bool hopper_attention_backward(const flash::Shape& s, int dtype, const void* dy, const void* qkv, const void* y, const float* lse, void* dqkv,
                               cudaStream_t stream, const char** error);

}  // namespace ds
