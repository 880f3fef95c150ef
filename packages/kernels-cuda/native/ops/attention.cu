// Attention: which kernel a call takes. bf16 and f16 without dropout go to cuDNN where it serves them, then to our tensor-core
// kernels; everything else (f32, dropout, other head_dims, unaligned views) to the plain ones. Rows of several documents, capped
// scores and ALiBi take our kernels: those pass over what is not seen, and cuDNN has no such scores.
// DEEPSPEED_TS_ATTENTION=cudnn|flash|plain chooses: flash passes cuDNN over, plain takes the plain kernels alone, and cudnn asks
// that the library be there.
#include <cstdlib>
#include <cstring>

#include "cudnn_attention.h"
#include "flash/hopper_attention.h"
#include "flash/shape.h"
#include "flash/statistics.cuh"

namespace ds {
namespace {

using flash::Shape;
using flash::Statistics;

enum class Choice { kBest, kCudnn, kFlash, kPlain, kUnknown };

Choice choice() {
  static const Choice chosen = [] {
    const char* name = std::getenv("DEEPSPEED_TS_ATTENTION");
    if (name == nullptr || *name == 0) return Choice::kBest;
    return strcmp(name, "cudnn") == 0 ? Choice::kCudnn
           : strcmp(name, "flash") == 0 ? Choice::kFlash
           : strcmp(name, "plain") == 0 ? Choice::kPlain
                                        : Choice::kUnknown;
  }();
  return chosen;
}

// `positions`: the index of that optional input.
const char* read_shape(const char* op, const Call& c, const View& qkv, int positions, Shape& s) {
  const int64_t heads = int64_t(c.attrs[0]), kv_heads = int64_t(c.attrs[1]), head_dim = int64_t(c.attrs[2]);
  if (kv_heads <= 0 || heads % kv_heads != 0 || (heads + 2 * kv_heads) * head_dim != qkv.dims[2])
    return error_text("%s: %lld query and %lld key/value heads of %lld do not make up rows of %lld", op, (long long)heads,
                      (long long)kv_heads, (long long)head_dim, (long long)qkv.dims[2]);
  if (head_dim > flash::kMostPlain)
    return error_text("%s: head_dim is at most %d, got %lld", op, flash::kMostPlain, (long long)head_dim);
  if (qkv.dims[0] > INT32_MAX || qkv.dims[1] > INT32_MAX - 1024)
    return error_text("%s: %lld sequences of %lld tokens are more than the kernels count", op, (long long)qkv.dims[0], (long long)qkv.dims[1]);
  if (choice() == Choice::kUnknown)
    return error_text("%s: DEEPSPEED_TS_ATTENTION is cudnn, flash or plain, got \"%s\"", op, std::getenv("DEEPSPEED_TS_ATTENTION"));
  s.batch = int(qkv.dims[0]), s.tokens = int(qkv.dims[1]), s.heads = int(heads), s.kv_heads = int(kv_heads);
  s.head_dim = int(head_dim), s.group = int(heads / kv_heads);
  s.scale = float(c.attrs[3]), s.causal = c.attrs[4] != 0;
  const double p = c.attrs[5];
  s.dropped = p > 0 ? dropout_threshold(p) : 0, s.keep = p > 0 ? float(1 / (1 - p)) : 1;
  s.key = {uint32_t(c.attrs[6]), uint32_t(c.attrs[7]), uint32_t(c.attrs[8]), uint32_t(c.attrs[9])};
  const double window = c.n_attrs > 10 ? c.attrs[10] : 0;
  s.window = window < s.tokens ? int(window) : 0;  // a window as long as the sequence hides nothing
  const double softcap = c.n_attrs > 11 ? c.attrs[11] : 0;
  s.softcap = softcap > 0 ? float(softcap) : 0, s.alibi = c.n_attrs > 12 && c.attrs[12] > 0;
  if (c.n_in > positions) {
    const View& documents = c.in[positions];
    if (documents.dtype != I32 || documents.numel != qkv.dims[0] * qkv.dims[1] || !s.causal)
      return error_text("%s: positions must be i32[%d, %d] and go with a causal mask", op, s.batch, s.tokens);
    s.positions = documents.as<const int>(), s.fault = fault_slot();
  }
  return nullptr;
}

bool empty(const Shape& s) { return s.batch == 0 || s.tokens == 0 || s.heads == 0 || s.head_dim == 0; }

bool tries_cudnn(const Shape& s, int dtype) {
  return dtype != F32 && s.dropped == 0 && s.positions == nullptr && !s.bent() && (choice() == Choice::kBest || choice() == Choice::kCudnn);
}

AttentionShape cudnn_shape(const Shape& s, int dtype) {
  return {s.batch, s.tokens, s.heads, s.kv_heads, s.head_dim, s.scale, s.causal != 0, s.window, DType(dtype)};
}

const char* not_served(const char* op) {
  const char* why = choice() == Choice::kCudnn ? cudnn_unavailable() : nullptr;
  return why == nullptr ? nullptr : error_text("%s: DEEPSPEED_TS_ATTENTION=cudnn, but %s", op, why);
}

bool tensor_cores(const Shape& s, int dtype, std::initializer_list<const void*> tensors) {
  if (dtype == F32 || s.dropped != 0 || (s.bent() && !s.causal) || choice() == Choice::kPlain || !(s.scale > 0)) return false;
  if (device_properties().major < 8 || device_properties().shared_memory < 99 * 1024) return false;
  for (const void* tensor : tensors)
    if (!is_aligned(tensor, 16)) return false;
  return s.head_dim == 64 || s.head_dim == 96 || s.head_dim == 128 || s.head_dim == 256;
}

}  // namespace

KERNEL(attention, kFloats) {
  const View &qkv = c.in[0], &y = c.out[0];
  Shape s = {};
  if (const char* error = read_shape("attention", c, qkv, 1, s)) return error;
  if (empty(s)) return nullptr;
  float* lse = c.out[1].as<float>();
  const char* error = nullptr;
  if (tries_cudnn(s, qkv.dtype)) {
    const Served served = cudnn_attention_forward(cudnn_shape(s, qkv.dtype), qkv.data, y.data, lse, c.stream, &error);
    if (served != Served::kNo) return served == Served::kYes ? nullptr : error;
    if ((error = not_served("attention")) != nullptr) return error;
  }
  const bool fast = tensor_cores(s, qkv.dtype, {qkv.data, y.data});
  by_float(qkv.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (sizeof(T) == 2) {
      if (fast) {
        const auto forward = s.bent() ? flash::bent_forward<T> : flash::forward<T>;
        error = forward(s, qkv.as<const T>(), y.as<T>(), lse, c.stream);
        return;
      }
    }
    error = flash::plain_forward(s, qkv.as<const T>(), y.as<T>(), lse, c.stream);
  });
  return error;
}

KERNEL(attention_backward, kFloats) {
  const View &dy = c.in[0], &qkv = c.in[1], &y = c.in[2], &dqkv = c.out[0];
  Shape s = {};
  if (const char* error = read_shape("attention_backward", c, qkv, 4, s)) return error;
  if (empty(s)) return nullptr;
  const float* lse = c.in[3].as<const float>();
  const char* error = nullptr;
  const auto hopper = [&] {
    return choice() == Choice::kBest && !s.bent() && hopper_attention_backward(s, qkv.dtype, dy.data, qkv.data, y.data, lse, dqkv.data, c.stream, &error);
  };
  // Measured on an H200, ours is faster than cuDNN's repeatable form: 257 to 200 and 355 to 247 TFLOP/s at head size 64 (1024 and 2048
  // tokens), 420 to 372 at 128 (4096 tokens); with grouped heads 335 to 245, and 407 to 372. Without a mask and groups it was slower.
  const bool preferred = s.causal || s.group > 1;
  if (preferred && hopper()) return error;
  if (tries_cudnn(s, qkv.dtype)) {
    const Served served =
        cudnn_attention_backward(cudnn_shape(s, qkv.dtype), dy.data, qkv.data, y.data, lse, dqkv.data, c.stream, &error);
    if (served != Served::kNo) return served == Served::kYes ? nullptr : error;
    if ((error = not_served("attention_backward")) != nullptr) return error;
  }
  if (!preferred && hopper()) return error;
  const int64_t rows = int64_t(s.batch) * s.heads * s.padded();
  auto* room = static_cast<float*>(scratch(kScratchAttention, size_t(2 * rows) * sizeof(float)));
  if (room == nullptr) return kNoWorkspace;
  const Statistics statistics = {room, room + rows};
  // The keys' kernel for 256 columns wants more shared memory than some devices give a block.
  const bool fast = tensor_cores(s, qkv.dtype, {dy.data, qkv.data, dqkv.data}) &&
                    (s.head_dim != 256 || device_properties().shared_memory >= 160 * 1024);
  by_float(qkv.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *gradient = dy.as<const T>(), *input = qkv.as<const T>();
    error = flash::statistics(s, gradient, y.as<const T>(), lse, statistics, c.stream);
    if (error != nullptr) return;
    if constexpr (sizeof(T) == 2) {
      if (fast) {
        const auto backward = s.bent() ? flash::bent_backward<T> : flash::backward<T>;
        error = backward(s, gradient, input, statistics, dqkv.as<T>(), c.stream);
        return;
      }
    }
    error = flash::plain_backward(s, gradient, input, statistics, dqkv.as<T>(), c.stream);
  });
  return error;
}

}  // namespace ds
