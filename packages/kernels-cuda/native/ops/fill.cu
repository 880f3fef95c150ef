// fill(value) -> y: every element is `value`, rounded or truncated to the dtype.
#include <cstring>

#include "../device.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256, kStores = 4;

// N elements of 2^k bytes a store.
template <int N, class E> __global__ void __launch_bounds__(kThreads) fill_kernel(E* y, int64_t n, E value) {
  Pack<E, N> pack;
#pragma unroll
  for (int i = 0; i < N; i++) pack.v[i] = value;
  const int64_t vectors = n / N, first = int64_t(blockIdx.x) * (kThreads * kStores) + threadIdx.x;
#pragma unroll
  for (int u = 0; u < kStores; u++)
    if (const int64_t i = first + u * kThreads; i < vectors) *reinterpret_cast<Pack<E, N>*>(y + i * N) = pack;
  const int64_t rest = vectors * N + threadIdx.x;
  if (blockIdx.x == gridDim.x - 1 && rest < n) y[rest] = value;
}

// `element` holds the bits of one element.
template <class E, class V> const char* fill_with(const Call& c, V element) {
  static_assert(sizeof(E) == sizeof(V));
  const View& y = c.out[0];
  E bits;
  std::memcpy(&bits, &element, sizeof bits);
  if (bits == 0) {
    const cudaError_t error = cudaMemsetAsync(y.data, 0, size_t(y.bytes()), c.stream);
    return error == cudaSuccess ? nullptr : cuda_error_text("fill", error);
  }
  constexpr int N = int(16 / sizeof(E));
  const bool aligned = is_aligned(y.data, 16);
  const int64_t vectors = aligned ? y.numel / N : y.numel, tile = kThreads * kStores;
  const unsigned blocks = unsigned(vectors < tile ? 1 : (vectors + tile - 1) / tile);
  if (aligned)
    fill_kernel<N><<<blocks, kThreads, 0, c.stream>>>(y.as<E>(), y.numel, bits);
  else
    fill_kernel<1><<<blocks, kThreads, 0, c.stream>>>(y.as<E>(), y.numel, bits);
  return nullptr;
}

}  // namespace

KERNEL(fill, kFloats) {
  const double value = c.attrs[0];
  if (c.out[0].numel == 0) return nullptr;
  switch (c.out[0].dtype) {
    case F32: return fill_with<uint32_t>(c, float(value));
    case F16: return fill_with<uint16_t>(c, __float2half_rn(float(value)));
    case BF16: return fill_with<uint16_t>(c, __float2bfloat16_rn(float(value)));
    case I32: return fill_with<uint32_t>(c, int32_t(value));
    case I64: return fill_with<uint64_t>(c, int64_t(value));
    case I8: return fill_with<uint8_t>(c, int8_t(value));
    case U8: return fill_with<uint8_t>(c, uint8_t(value));
    case BOOL: return fill_with<uint8_t>(c, uint8_t(value != 0));
  }
  return error_text("fill: no dtype has code %d", c.out[0].dtype);
}

}  // namespace ds
