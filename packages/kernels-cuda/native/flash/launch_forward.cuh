#pragma once
#include "flash/by_shape.h"
#include "flash/forward.cuh"

namespace ds {
namespace flash {

template <bool bent, class T, class D, class Mask>
const char* launch_forward(D, Mask, const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream) {
  using Tile = ForwardTile<D::value>;
  const int64_t blocks = int64_t(parts(s.tokens, Tile::queries)) * s.heads * s.batch;
  return start(forward_kernel<T, D::value, Mask::value, bent>, blocks, kThreads, Tile::bytes, stream, s, qkv, y, lse);
}

template <class T> const char* forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream) {
  return by_shape(s, [&](auto d, auto mask) { return launch_forward<false>(d, mask, s, qkv, y, lse, stream); });
}

template <class T> const char* bent_forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream) {
  return by_head_dim(s, [&](auto d) { return launch_forward<true>(d, std::true_type{}, s, qkv, y, lse, stream); });
}

}  // namespace flash
}  // namespace ds
