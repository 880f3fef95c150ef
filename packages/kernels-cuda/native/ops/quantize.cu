// Codes and scales of n elements in blocks of 64, and back: scale = max |x| of the block,
//   int8  code = round(x / scale 127), value = code / 127 scale;   nf4  code = nearest of 16 values to x / scale, two in a byte
// All in f32 and rounded to nearest, so that the codes are those of every other backend.
#include "../elementwise.cuh"
#include "../quantized.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256;
__constant__ float kValues[16] = {kNf4Values[0],  kNf4Values[1],  kNf4Values[2],  kNf4Values[3], kNf4Values[4],  kNf4Values[5],
                                  kNf4Values[6],  kNf4Values[7],  kNf4Values[8],  kNf4Values[9], kNf4Values[10], kNf4Values[11],
                                  kNf4Values[12], kNf4Values[13], kNf4Values[14], kNf4Values[15]};

// Constants, for a function of the host's that computed them while a kernel runs would trap.
__constant__ float kBoundaries[15] = {nf4_boundary(0),  nf4_boundary(1),  nf4_boundary(2),  nf4_boundary(3),  nf4_boundary(4),
                                      nf4_boundary(5),  nf4_boundary(6),  nf4_boundary(7),  nf4_boundary(8),  nf4_boundary(9),
                                      nf4_boundary(10), nf4_boundary(11), nf4_boundary(12), nf4_boundary(13), nf4_boundary(14)};

// ---- to codes ------------------------------------------------------------------------------------------------
// A half warp takes a block, each lane four elements that lie together.
constexpr int kLaneElements = 4, kBlockLanes = int(kQuantizedBlock) / kLaneElements, kBlocksInThreads = kThreads / kBlockLanes;

__device__ __forceinline__ int int8_code(float x) { return __float2int_rn(__fmul_rn(x, 127.0f)); }

__device__ __forceinline__ int nf4_code(float x) {
  int code = 0;
#pragma unroll
  for (int i = 0; i < 15; i++) code += x > kBoundaries[i];
  return code;
}

template <int format, bool aligned, class T>
__global__ void __launch_bounds__(kThreads) to_codes(int64_t n, const T* x, uint8_t* codes, float* scales) {
  const int64_t block = blockIdx.x * int64_t(kBlocksInThreads) + threadIdx.x / kBlockLanes;
  const int64_t at = block * kQuantizedBlock + threadIdx.x % kBlockLanes * kLaneElements;
  float v[kLaneElements] = {};
  if (aligned && at + kLaneElements <= n) {
    load<kLaneElements>(x + at, v);
  } else {
#pragma unroll
    for (int i = 0; i < kLaneElements; i++)
      if (at + i < n) v[i] = to_float(x[at + i]);
  }
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kLaneElements; i++) largest = fmaxf(largest, fabsf(v[i]));
#pragma unroll
  for (int offset = kBlockLanes / 2; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (at >= n) return;
  if (threadIdx.x % kBlockLanes == 0) scales[block] = largest;
  int code[kLaneElements];
#pragma unroll
  for (int i = 0; i < kLaneElements; i++) {
    const float scaled = largest == 0 ? 0 : __fdiv_rn(v[i], largest);
    code[i] = format == kInt8 ? int8_code(scaled) : nf4_code(scaled);
  }
  if (format == kInt8) {
    if (aligned && at + kLaneElements <= n) {
      *reinterpret_cast<char4*>(codes + at) = make_char4(char(code[0]), char(code[1]), char(code[2]), char(code[3]));
    } else {
#pragma unroll
      for (int i = 0; i < kLaneElements; i++)
        if (at + i < n) codes[at + i] = uint8_t(code[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kLaneElements; i += 2)
      if (at + i < n) codes[(at + i) / 2] = uint8_t(code[i] << 4 | code[i + 1]);
  }
}

// ---- to values -----------------------------------------------------------------------------------------------
// A thread makes 16 bytes of values at a time from as many codes, all of one block of elements, and takes several such, a block of
// threads apart: what is written is most of what is moved, and is written whole.
constexpr int kVectors = 4;

// In shared memory, for lanes look up different values; a copy for each lane, so that they find them in different banks.
struct Table {
  float value[16][32];
};

template <int format, class T>
__global__ void __launch_bounds__(kThreads) to_values(int64_t n, const uint8_t* codes, const float* scales, T* y, bool aligned) {
  constexpr int N = kVector<T>, kBytes = format == kInt8 ? N : N / 2;
  __shared__ Table table;
  if constexpr (format == kNf4) {
    for (int i = threadIdx.x; i < 16 * 32; i += kThreads) table.value[i / 32][i % 32] = kValues[i / 32];
    __syncthreads();
  }
  const int64_t first = blockIdx.x * int64_t(kThreads * kVectors) + threadIdx.x;
  Pack<uint8_t, kBytes> pack[kVectors] = {};
  float scale[kVectors];
#pragma unroll
  for (int u = 0; u < kVectors; u++) {
    const int64_t at = (first + u * kThreads) * N, byte = at / N * kBytes;
    if (at >= n) break;
    scale[u] = scales[at / kQuantizedBlock];
    if (aligned && at + N <= n) {
      pack[u] = load_pack<kBytes>(codes + byte);
    } else {
#pragma unroll
      for (int i = 0; i < kBytes; i++)
        if (at + i * (N / kBytes) < n) pack[u].v[i] = codes[byte + i];
    }
  }
#pragma unroll
  for (int u = 0; u < kVectors; u++) {
    const int64_t at = (first + u * kThreads) * N;
    if (at >= n) break;
    float v[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
      const uint8_t byte = pack[u].v[i * kBytes / N];
      if constexpr (format == kInt8) v[i] = __fmul_rn(float(int8_t(byte)), 1.0f / 127);
      else v[i] = table.value[i % 2 == 0 ? byte >> 4 : byte & 15][threadIdx.x % 32];
      v[i] = __fmul_rn(v[i], scale[u]);
    }
    if (aligned && at + N <= n) {
      store_pack<N>(y + at, packed<T>(v));
    } else {
#pragma unroll
      for (int i = 0; i < N; i++)
        if (at + i < n) y[at + i] = from_float<T>(v[i]);
    }
  }
}

const char* check(const char* op, int format, int64_t n, const View& codes, const View& scales) {
  const int32_t dtype = format == kInt8 ? I8 : U8;
  if (codes.dtype == dtype && codes.numel == codes_of(format, n) && scales.dtype == F32 && scales.numel == scales_of(n)) return nullptr;
  return error_text("%s: %lld elements have %lld codes of dtype code %d and %lld f32 scales, got %lld of code %d and %lld", op, (long long)n,
                    (long long)codes_of(format, n), dtype, (long long)scales_of(n), (long long)codes.numel, codes.dtype,
                    (long long)scales.numel);
}

template <int format, class T> void quantize(const Call& c) {
  const int64_t n = c.in[0].numel;
  const T* x = c.in[0].as<const T>();
  uint8_t* codes = c.out[0].as<uint8_t>();
  float* scales = c.out[1].as<float>();
  const unsigned grid = unsigned((scales_of(n) + kBlocksInThreads - 1) / kBlocksInThreads);
  if (is_aligned(x, kLaneElements * sizeof(T)) && is_aligned(codes, kLaneElements))
    to_codes<format, true><<<grid, kThreads, 0, c.stream>>>(n, x, codes, scales);
  else
    to_codes<format, false><<<grid, kThreads, 0, c.stream>>>(n, x, codes, scales);
}

template <int format, class T> void dequantize(const Call& c) {
  constexpr int N = kVector<T>, kBytes = format == kInt8 ? N : N / 2;
  const int64_t n = c.out[0].numel, tile = int64_t(kThreads) * kVectors * N;
  const uint8_t* codes = c.in[0].as<const uint8_t>();
  T* y = c.out[0].as<T>();
  const bool aligned = is_aligned(codes, kBytes) && is_aligned(y, 16);
  to_values<format><<<unsigned((n + tile - 1) / tile), kThreads, 0, c.stream>>>(n, codes, c.in[1].as<const float>(), y, aligned);
}

}  // namespace

KERNEL(quantize, kFloats) {
  const View& x = c.in[0];
  const int format = int(c.attrs[0]);
  if (const char* error = check("quantize", format, x.numel, c.out[0], c.out[1])) return error;
  if (x.numel == 0) return nullptr;
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    format == kInt8 ? quantize<kInt8, T>(c) : quantize<kNf4, T>(c);
  });
  return nullptr;
}

KERNEL(dequantize, kFloats) {
  const View& y = c.out[0];
  const int format = int(c.attrs[0]);
  if (const char* error = check("dequantize", format, y.numel, c.in[0], c.in[1])) return error;
  if (y.numel == 0) return nullptr;
  by_float(y.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    format == kInt8 ? dequantize<kInt8, T>(c) : dequantize<kNf4, T>(c);
  });
  return nullptr;
}

}  // namespace ds
