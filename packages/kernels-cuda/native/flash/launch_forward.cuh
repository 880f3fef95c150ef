#pragma once
#include "flash/by_shape.h"
#include "flash/forward.cuh"

namespace ds {
namespace flash {

template <class T> const char* forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream) {
  return by_shape(s, [&](auto d, auto mask) {
    constexpr int D = decltype(d)::value;
    using Tile = ForwardTile<D>;
    const int64_t blocks = int64_t(parts(s.tokens, Tile::queries)) * s.heads * s.batch;
    return start(forward_kernel<T, D, decltype(mask)::value>, blocks, kThreads, Tile::bytes, stream, s, qkv, y, lse);
  });
}

}  // namespace flash
}  // namespace ds
