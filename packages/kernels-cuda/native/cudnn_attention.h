// Attention through cuDNN's graph API, where libcudnn is present and serves the shape.
#pragma once
#include "kernel.h"

namespace ds {

// Packed qkv [batch, tokens, (heads + 2 kv_heads) head_dim] as core's attention op has it.
struct AttentionShape {
  int64_t batch, tokens, heads, kv_heads, head_dim;
  float scale;
  bool causal;
  int64_t window;  // keys before the query that it sees, itself included; 0: all
  DType dtype;     // BF16 or F16
};

enum class Served { kYes, kNo, kFailed };

// kNo: not served (no libcudnn, or not this shape), take another kernel. kFailed: `error` says why.
// y [batch, tokens, heads, head_dim], lse f32 [batch, heads, tokens].
Served cudnn_attention_forward(const AttentionShape& s, const void* qkv, void* y, float* lse, cudaStream_t stream, const char** error);
Served cudnn_attention_backward(const AttentionShape& s, const void* dy, const void* qkv, const void* y, const float* lse, void* dqkv,
                                cudaStream_t stream, const char** error);

// For reports: nullptr when usable, else why not ("libcudnn.so.9 was not found in ...").
const char* cudnn_unavailable();

}  // namespace ds
