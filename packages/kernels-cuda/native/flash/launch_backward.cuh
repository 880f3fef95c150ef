#pragma once
#include "flash/backward_keys.cuh"
#include "flash/backward_queries.cuh"
#include "flash/by_shape.h"

namespace ds {
namespace flash {

template <bool bent, class T, class Size, class Mask>
const char* launch_backward(Size, Mask, const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream) {
  constexpr int D = Size::value;
  constexpr bool causal = Mask::value;
  using Keys = KeysTile<D>;
  using Queries = QueriesTile<D>;
  const int64_t keys = int64_t(parts(s.tokens, Keys::keys)) * s.kv_heads * s.batch * (D / Keys::columns);
  const int64_t queries = int64_t(parts(s.tokens, Queries::queries)) * s.heads * s.batch;
  int stages = stages_for(Keys::bytes(2));
  const char* error =
      start(backward_keys_kernel<T, D, causal, bent>, keys, kThreads, Keys::bytes(stages), stream, s, dy, qkv, rows, dqkv, stages);
  if (error != nullptr) return error;
  stages = stages_for(Queries::bytes(2));
  return start(backward_queries_kernel<T, D, causal, bent>, queries, kThreads, Queries::bytes(stages), stream, s, dy, qkv, rows, dqkv, stages);
}

template <class T>
const char* backward(const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream) {
  return by_shape(s, [&](auto d, auto mask) { return launch_backward<false>(d, mask, s, dy, qkv, rows, dqkv, stream); });
}

template <class T>
const char* bent_backward(const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream) {
  return by_head_dim(s, [&](auto d) { return launch_backward<true>(d, std::true_type{}, s, dy, qkv, rows, dqkv, stream); });
}

}  // namespace flash
}  // namespace ds
