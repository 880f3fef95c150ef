// Casting to 8-bit floats (Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433): e4m3 for values, e5m2 for
// gradients. Tensor cores want both operands with the summed axis contiguous, so a matrix is often needed as it is and transposed:
// one pass reads it once, writes either or both, and notes its largest magnitude for the scales to come.
//
// A tensor's state is f32 [2 + history]: its scale (a power of two, so that scaling rounds nothing), the largest magnitude seen since
// the scale was set, and those of the steps before.
#pragma once
#include <cuda_fp8.h>

#include "activation.cuh"
#include "elementwise.cuh"

namespace ds {
namespace fp8 {

constexpr int kThreads = 256;
constexpr int kTile = 128;           // rows and columns of a block's tile
constexpr int kRows = 4, kCols = 8;  // a thread's patch: four rows of a column make a word of the transposed tile
constexpr size_t kTileBytes = size_t(kTile) * kTile;

__host__ __device__ constexpr float largest(bool e5m2) { return e5m2 ? 57344.0f : 448.0f; }

// The largest power of two that brings `amax` to the format's range, 2^margin below its end; `present` where there is nothing to go by.
__device__ __forceinline__ float scale_for(float amax, bool e5m2, int margin, float present) {
  if (!(amax > 0.0f && amax <= 3.4e38f)) return present > 0.0f ? present : 1.0f;
  const int exponent = ilogbf(__fdiv_rn(largest(e5m2), amax)) - margin;
  return exp2f(float(exponent < -100 ? -100 : exponent > 100 ? 100 : exponent));
}

// Where one stream of values goes. Null: not wanted.
struct Output {
  uint8_t* rows;       // [rows, ld_rows]
  uint8_t* columns;    // transposed: [cols, ld_columns]
  int64_t ld_rows, ld_columns;
  float* state;
  float* inverse;      // gets 1 / scale
};
template <int N> struct Outputs {
  Output of[N];
};

template <bool kE5M2> __device__ __forceinline__ uint2 codes_of(const float (&x)[kCols], float scale) {
  uint32_t pair[4];
#pragma unroll
  for (int i = 0; i < 4; i++)
    pair[i] = __nv_cvt_float2_to_fp8x2(make_float2(x[2 * i] * scale, x[2 * i + 1] * scale), __NV_SATFINITE, kE5M2 ? __NV_E5M2 : __NV_E4M3);
  return make_uint2(pair[0] | pair[1] << 16, pair[2] | pair[3] << 16);
}

// Bytes [row][column] of four rows to words of a column each.
__device__ __forceinline__ void transpose(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t (&word)[4]) {
  const uint32_t low_ab = __byte_perm(a, b, 0x5140), low_cd = __byte_perm(c, d, 0x5140);
  const uint32_t high_ab = __byte_perm(a, b, 0x7362), high_cd = __byte_perm(c, d, 0x7362);
  word[0] = __byte_perm(low_ab, low_cd, 0x5410), word[1] = __byte_perm(low_ab, low_cd, 0x7632);
  word[2] = __byte_perm(high_ab, high_cd, 0x5410), word[3] = __byte_perm(high_ab, high_cd, 0x7632);
}

// kCols elements of a row; what lies beyond `cols` is 0.
template <bool kAligned, class T> __device__ __forceinline__ Pack<T, kCols> load_row(const T* row, int64_t col, int64_t cols) {
  if constexpr (kAligned) {
    if (col < cols) return load_pack<kCols>(row + col);
  }
  Pack<T, kCols> pack;
#pragma unroll
  for (int j = 0; j < kCols; j++) pack.v[j] = !kAligned && col + j < cols ? row[col + j] : from_float<T>(0.0f);
  return pack;
}

// What is cast. kStreams values for each place of [rows, cols]; a place beyond the rows is 0.
//   Raw: what is loaded for a patch's row; load() and values() give it and what comes of it.
template <class T> struct Plain {
  static constexpr int kStreams = 1;
  const T* x;
  struct Raw {
    Pack<T, kCols> x;
  };
  template <bool kAligned> __device__ __forceinline__ Raw load(int64_t row, int64_t col, int64_t cols) const {
    return {load_row<kAligned>(x + row * cols, col, cols)};
  }
  __device__ __forceinline__ static void values(const Raw& raw, float (&out)[1][kCols]) { unpack(raw.x, out[0]); }
};

// The block's share of a stream: codes of its tile to memory.
template <bool kAligned>
__device__ __forceinline__ void store_rows(const Output& out, uint2 code, int64_t row, int64_t col, int64_t cols) {
  uint8_t* to = out.rows + row * out.ld_rows + col;
  if constexpr (kAligned) {
    if (col < cols) *reinterpret_cast<uint2*>(to) = code;
  } else {
#pragma unroll
    for (int j = 0; j < kCols; j++)
      if (col + j < cols) to[j] = uint8_t((j < 4 ? code.x : code.y) >> (8 * (j % 4)));
  }
}

// Word `group` (four rows) of column `c` of the tile is kept at group ^ 2 (c / 8): 16 patches side by side then write to banks of their
// own, and 16 bytes of a column stay together (halves swapped where c / 8 is odd).
template <bool kAligned>
__device__ __forceinline__ void store_columns(const Output& out, const uint32_t* tile, int64_t row, int64_t col, int64_t cols, int64_t rows_out) {
#pragma unroll
  for (int i = 0; i < kTile / 32; i++) {
    const int chunk = threadIdx.x % 8, c = threadIdx.x / 8 + 32 * i, patch = c / kCols;
    if (col + c >= cols) continue;
    const uint4 kept = reinterpret_cast<const uint4*>(tile)[c * 8 + (chunk ^ (patch >> 1))];
    const uint4 bytes = patch & 1 ? make_uint4(kept.z, kept.w, kept.x, kept.y) : kept;
    const int64_t first = row + 16 * chunk;
    uint8_t* to = out.columns + (col + c) * out.ld_columns + first;
    if constexpr (kAligned) {
      if (first < rows_out) *reinterpret_cast<uint4*>(to) = bytes;
    } else {
      const uint32_t words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
#pragma unroll
      for (int j = 0; j < 16; j++)
        if (first + j < rows_out) to[j] = uint8_t(words[j / 4] >> (8 * (j % 4)));
    }
  }
}

// measure: only the largest magnitudes. rows_out >= rows: so many rows has the transposed matrix, zeros at its end.
template <class Source, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    cast_kernel(Source source, Outputs<Source::kStreams> out, int64_t rows, int64_t cols, int64_t rows_out, bool measure) {
  constexpr int kStreams = Source::kStreams;
  extern __shared__ uint4 tiles[];
  __shared__ float room[32];
  uint32_t* words = reinterpret_cast<uint32_t*>(tiles);
  const int64_t tiles_in_row = (cols + kTile - 1) / kTile;
  const int64_t tile_row = int64_t(blockIdx.x) / tiles_in_row;
  const int64_t row0 = tile_row * kTile, col0 = (int64_t(blockIdx.x) - tile_row * tiles_in_row) * kTile;
  float scale[kStreams], amax[kStreams];
#pragma unroll
  for (int s = 0; s < kStreams; s++) scale[s] = out.of[s].state[0], amax[s] = 0.0f;

  for (int p = threadIdx.x; p < kTile * kTile / (kRows * kCols); p += kThreads) {
    const int patch = p % (kTile / kCols), group = p / (kTile / kCols);
    const int64_t row = row0 + group * kRows, col = col0 + patch * kCols;
    typename Source::Raw raw[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) raw[r] = source.template load<kAligned>(row + r, row + r < rows ? col : cols, cols);
    uint2 code[kStreams][kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      float x[kStreams][kCols];
      Source::values(raw[r], x);
#pragma unroll
      for (int s = 0; s < kStreams; s++) {
#pragma unroll
        for (int j = 0; j < kCols; j++) amax[s] = fmaxf(amax[s], fabsf(x[s][j]));
        code[s][r] = Source::is_e5m2(s) ? codes_of<true>(x[s], scale[s]) : codes_of<false>(x[s], scale[s]);
        if (!measure && out.of[s].rows != nullptr && row + r < rows) store_rows<kAligned>(out.of[s], code[s][r], row + r, col, cols);
      }
    }
#pragma unroll
    for (int s = 0; s < kStreams; s++) {
      if (measure || out.of[s].columns == nullptr) continue;
      uint32_t low[4], high[4];
      transpose(code[s][0].x, code[s][1].x, code[s][2].x, code[s][3].x, low);
      transpose(code[s][0].y, code[s][1].y, code[s][2].y, code[s][3].y, high);
      uint32_t* to = words + s * (kTileBytes / 4) + patch * kCols * (kTile / 4) + (group ^ (2 * patch));
#pragma unroll
      for (int j = 0; j < 4; j++) to[j * (kTile / 4)] = low[j], to[(j + 4) * (kTile / 4)] = high[j];
    }
  }
  __syncthreads();
#pragma unroll
  for (int s = 0; s < kStreams; s++) {
    const Output& o = out.of[s];
    if (!measure && o.columns != nullptr) store_columns<kAligned>(o, words + s * (kTileBytes / 4), row0, col0, cols, rows_out);
    const float most = block_reduce(amax[s], 0.0f, room, Max());
    if (threadIdx.x != 0) continue;
    // The largest of non-negative floats is that of their bits; mostly there is nothing to raise.
    if (most > *reinterpret_cast<volatile float*>(o.state + 1)) atomicMax(reinterpret_cast<int*>(o.state + 1), __float_as_int(most));
    if (!measure && blockIdx.x == 0 && o.inverse != nullptr) *o.inverse = 1.0f / scale[s];
  }
}

// A cast source whose format is that of its streams: bit s of kGradients says e5m2.
template <class Base, unsigned kGradients> struct Formatted : Base {
  __device__ __forceinline__ static constexpr bool is_e5m2(int stream) { return (kGradients >> stream) & 1; }
};

template <class Source>
void cast(const Source& source, const Outputs<Source::kStreams>& out, int64_t rows, int64_t cols, int64_t rows_out, bool aligned,
          bool measure, cudaStream_t stream) {
  if (cols == 0 || rows_out == 0) return;
  bool transposes = false;
  for (const Output& o : out.of) {
    transposes |= o.columns != nullptr;
    if (o.rows) aligned = aligned && o.ld_rows % kCols == 0 && is_aligned(o.rows, kCols);
    if (o.columns) aligned = aligned && o.ld_columns % 16 == 0 && rows_out % 16 == 0 && is_aligned(o.columns, 16);
  }
  const int64_t tiles = ((rows_out + kTile - 1) / kTile) * ((cols + kTile - 1) / kTile);
  const size_t shared = transposes && !measure ? Source::kStreams * kTileBytes : 0;
  const auto launch = [&](auto kernel) {
    if (shared > (32u << 10)) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    kernel<<<unsigned(tiles), kThreads, shared, stream>>>(source, out, rows, cols, rows_out, measure);
  };
  if (aligned && cols % kCols == 0)
    launch(cast_kernel<Source, true>);
  else
    launch(cast_kernel<Source, false>);
}

// Sets a tensor's scale from what was measured (fp8_advance.cu).
void set_scale(float* state, bool e5m2, int margin, cudaStream_t stream);

static inline int64_t padded(int64_t rows) { return (rows + 15) / 16 * 16; }

}  // namespace fp8
}  // namespace ds
