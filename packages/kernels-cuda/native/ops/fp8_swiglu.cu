// SwiGLU and its gradient where only products in 8 bits read the results: they are written as codes and nothing else.
// h [T, 2F] = [gate | up] and da [T, F] are bf16.
#include "../fp8.cuh"

namespace ds {
namespace {

using fp8::kCols;

struct Forward {
  static constexpr int kStreams = 1;
  const bf16* h;
  struct Raw {
    Pack<bf16, kCols> gate, up;
  };
  template <bool kAligned> __device__ __forceinline__ Raw load(int64_t row, int64_t col, int64_t cols) const {
    const bf16* at = h + row * 2 * cols;
    return {fp8::load_row<kAligned>(at, col, cols), fp8::load_row<kAligned>(at + cols, col, cols)};
  }
  __device__ __forceinline__ static void values(const Raw& raw, float (&out)[1][kCols]) {
    float gate[kCols], up[kCols];
    unpack(raw.gate, gate);
    unpack(raw.up, up);
#pragma unroll
    for (int j = 0; j < kCols; j++) out[0][j] = gate[j] * sigmoid<true>(gate[j]) * up[j];
  }
};

// Streams: the gradients of gate and up, and once more the forward result.
struct Backward {
  static constexpr int kStreams = 3;
  const bf16 *da, *h;
  struct Raw {
    Pack<bf16, kCols> da, gate, up;
  };
  template <bool kAligned> __device__ __forceinline__ Raw load(int64_t row, int64_t col, int64_t cols) const {
    const bf16* at = h + row * 2 * cols;
    return {fp8::load_row<kAligned>(da + row * cols, col, cols), fp8::load_row<kAligned>(at, col, cols),
            fp8::load_row<kAligned>(at + cols, col, cols)};
  }
  __device__ __forceinline__ static void values(const Raw& raw, float (&out)[3][kCols]) {
    float d[kCols], gate[kCols], up[kCols];
    unpack(raw.da, d);
    unpack(raw.gate, gate);
    unpack(raw.up, up);
#pragma unroll
    for (int j = 0; j < kCols; j++) {
      const float s = sigmoid<true>(gate[j]), silu = gate[j] * s;
      out[0][j] = d[j] * up[j] * fmaf(silu, 1.0f - s, s);
      out[1][j] = d[j] * silu;
      out[2][j] = silu * up[j];
    }
  }
};

}  // namespace

// in: h; out: codes of a [T, F] (e4m3), 1 / scale, state. attrs: calibrate, margin.
KERNEL(fp8_swiglu, dtype_bit(BF16) | dtype_bit(F32)) {
  const View &h = c.in[0], &codes = c.out[0];
  if (h.dtype != BF16 || h.numel != 2 * codes.numel || h.cols() != 2 * codes.cols()) return "fp8_swiglu: bf16 h of twice the columns of the codes";
  fp8::Formatted<Forward, 0u> source;
  source.h = h.as<const bf16>();
  fp8::Outputs<1> out = {};
  out.of[0] = {codes.as<uint8_t>(), nullptr, codes.cols(), 0, c.out[2].as<float>(), c.out[1].as<float>()};
  const auto pass = [&](bool measure) {
    fp8::cast(source, out, codes.rows(), codes.cols(), codes.rows(), is_aligned(h.data, 16), measure, c.stream);
  };
  if (c.attrs[0] != 0) {
    pass(true);
    fp8::set_scale(out.of[0].state, false, int(c.attrs[1]), c.stream);
  }
  pass(false);
  return nullptr;
}

// in: da, h; out: dh [T, 2F] and its transpose [2F, T padded] (e5m2), its 1 / scale and state; the transpose of a [F, T padded] (e4m3),
// its 1 / scale and state. attrs: calibrate, margin.
KERNEL(fp8_swiglu_backward, dtype_bit(BF16) | dtype_bit(F32)) {
  const View &da = c.in[0], &h = c.in[1], &dh = c.out[0], &dh_columns = c.out[1], &a_columns = c.out[4];
  const int64_t rows = da.rows(), F = da.cols(), rows_out = fp8::padded(rows);
  if (c.n_out != 7 || h.dtype != BF16 || da.dtype != BF16 || h.numel != 2 * da.numel || dh.numel != h.numel || h.cols() != 2 * F ||
      dh_columns.numel != 2 * F * rows_out || a_columns.numel != F * rows_out)
    return "fp8_swiglu_backward: da, h and the codes do not fit together";
  fp8::Formatted<Backward, 3u> source;
  source.da = da.as<const bf16>(), source.h = h.as<const bf16>();
  float *inverse = c.out[2].as<float>(), *state = c.out[3].as<float>();
  fp8::Outputs<3> out = {};
  out.of[0] = {dh.as<uint8_t>(), dh_columns.as<uint8_t>(), 2 * F, rows_out, state, inverse};
  out.of[1] = {dh.as<uint8_t>() + F, dh_columns.as<uint8_t>() + F * rows_out, 2 * F, rows_out, state, inverse};
  out.of[2] = {nullptr, a_columns.as<uint8_t>(), 0, rows_out, c.out[6].as<float>(), c.out[5].as<float>()};
  const auto pass = [&](bool measure) {
    fp8::cast(source, out, rows, F, rows_out, is_aligned(da.data, 16) && is_aligned(h.data, 16), measure, c.stream);
  };
  if (c.attrs[0] != 0) {
    pass(true);
    fp8::set_scale(state, true, int(c.attrs[1]), c.stream);
    fp8::set_scale(c.out[6].as<float>(), false, int(c.attrs[1]), c.stream);
  }
  pass(false);
  return nullptr;
}

}  // namespace ds
