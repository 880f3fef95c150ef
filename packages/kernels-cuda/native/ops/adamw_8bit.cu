// One AdamW step over a flat range, moments in 8-bit dynamic codes with a scale for each 256 elements (Dettmers et al., 2022);
// the formula is adamw.cu's, in f32, on decoded moments:
//   m = value[code] scale,  ... the step ...,  scale = max |m| of the block,  code = nearest(m / scale)
// A second moment that is not zero keeps a code that is not zero.
#include <cmath>

#include "../dynamic_code.cuh"
#include "optimizer.cuh"

namespace ds {
namespace {

// First moments have a sign, second ones have not.
constexpr int kFirst = 0, kSecond = 1;
__constant__ DynamicCode kCodes[2] = {dynamic_code(true), dynamic_code(false)};

struct Adam8 {
  float weight_decay, one_minus_beta1, beta1, one_minus_beta2, beta2, root_bias2, eps, decay, minus_step;
  bool decoupled;
};

template <class G, class P, class L> struct Arrays {
  const G* grad;
  P* master;
  uint8_t* code[2];
  float* scale[2];
  L* low;  // nullptr without a copy
};

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kPack = 4, kPacks = kCodeBlock / (32 * kPack);  // of a lane: elements that lie together, and how many such

// In shared memory: lanes look up different values.
struct Tables {
  float value[2][256];
  float boundary[2][256];
};

// Eight comparisons find the first boundary that x does not exceed.
__device__ __forceinline__ int code_of(const float* boundary, float x) {
  int code = 0;
#pragma unroll
  for (int step = 128; step > 0; step /= 2)
    if (x > boundary[code + step - 1]) code += step;
  return code;
}

// Pack of what a lane holds; elements at n and beyond read as zero and are not written.
template <bool aligned, class T> __device__ __forceinline__ Pack<T, kPack> load_some(const T* from, int64_t at, int64_t n) {
  if (aligned && at + kPack <= n) return load_once<kPack>(from + at);
  Pack<T, kPack> pack = {};
#pragma unroll
  for (int i = 0; i < kPack; i++)
    if (at + i < n) pack.v[i] = from[at + i];
  return pack;
}
template <bool aligned, class T> __device__ __forceinline__ void store_some(T* to, int64_t at, int64_t n, const Pack<T, kPack>& pack) {
  if (aligned && at + kPack <= n) return store_once<kPack>(to + at, pack);
#pragma unroll
  for (int i = 0; i < kPack; i++)
    if (at + i < n) to[at + i] = pack.v[i];
}

// A warp updates a block of 256 elements at a time. All lanes go the same way.
template <bool aligned, class G, class P, class L>
__global__ void __launch_bounds__(kThreads) update_blocks(Arrays<G, P, L> r, const float* coefficients, int64_t n, Adam8 a) {
  const float coefficient = *coefficients;
  if (coefficient != coefficient) return;
  __shared__ Tables tables;
  for (int i = threadIdx.x; i < 512; i += kThreads) {
    tables.value[i / 256][i % 256] = kCodes[i / 256].value[i % 256];
    tables.boundary[i / 256][i % 256] = kCodes[i / 256].boundary[i % 256];
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  const int64_t blocks = (n + kCodeBlock - 1) / kCodeBlock;
  for (int64_t b = blockIdx.x * int64_t(kWarps) + threadIdx.x / 32; b < blocks; b += gridDim.x * int64_t(kWarps)) {
    float moment[2][kPacks][kPack], top[2] = {0, 0};
    const float scale[2] = {r.scale[kFirst][b], r.scale[kSecond][b]};
#pragma unroll
    for (int k = 0; k < kPacks; k++) {
      const int64_t at = b * kCodeBlock + (k * 32 + lane) * kPack;
      const Pack<G, kPack> grad = load_some<aligned>(r.grad, at, n);
      const Pack<P, kPack> master = load_some<aligned>(r.master, at, n);
      const Pack<uint8_t, kPack> first = load_some<aligned>(r.code[kFirst], at, n);
      const Pack<uint8_t, kPack> second = load_some<aligned>(r.code[kSecond], at, n);
      float weights[kPack];
#pragma unroll
      for (int i = 0; i < kPack; i++) {
        float p = to_float(master.v[i]), g = times(to_float(grad.v[i]), coefficient);
        if (!a.decoupled) g = fused(a.weight_decay, p, g);
        const float m = fused(a.one_minus_beta1, g, times(a.beta1, times(tables.value[kFirst][first.v[i]], scale[kFirst])));
        const float v = fused(times(a.one_minus_beta2, g), g, times(a.beta2, times(tables.value[kSecond][second.v[i]], scale[kSecond])));
        if (a.decoupled) p = times(p, a.decay);
        weights[i] = fused(a.minus_step, over(m, plus(times(root(v), a.root_bias2), a.eps)), p);
        // What lies beyond the range has no say in the scale.
        const bool inside = at + i < n;
        moment[kFirst][k][i] = inside ? m : 0, moment[kSecond][k][i] = inside ? v : 0;
        top[kFirst] = fmaxf(top[kFirst], fabsf(moment[kFirst][k][i]));
        top[kSecond] = fmaxf(top[kSecond], moment[kSecond][k][i]);
      }
      store_some<aligned>(r.master, at, n, packed<P>(weights));
      if (r.low != nullptr) store_some<aligned>(r.low, at, n, packed<L>(weights));
    }
#pragma unroll
    for (int s = 0; s < 2; s++) {
      top[s] = warp_reduce(top[s], Max());
      if (lane == 0) r.scale[s][b] = top[s];
#pragma unroll
      for (int k = 0; k < kPacks; k++) {
        Pack<uint8_t, kPack> codes;
#pragma unroll
        for (int i = 0; i < kPack; i++) {
          const float x = moment[s][k][i];
          int code = code_of(tables.boundary[s], top[s] == 0 ? 0.0f : over(x, top[s]));
          if (s == kSecond && code == 0 && x > 0) code = 1;
          codes.v[i] = uint8_t(code);
        }
        store_some<aligned>(r.code[s], b * kCodeBlock + (k * 32 + lane) * kPack, n, codes);
      }
    }
  }
}

__global__ void decode_kernel(const uint8_t* codes, const float* scales, float* values, int64_t n, int which) {
  __shared__ float table[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) table[i] = kCodes[which].value[i];
  __syncthreads();
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i < n) values[i] = times(table[codes[i]], scales[i / kCodeBlock]);
}

const char* check(const Call& c) {
  const int64_t n = c.in[0].numel, blocks = (n + kCodeBlock - 1) / kCodeBlock;
  if (c.n_in != 2 || c.n_out < 5 || c.n_out > 6)
    return error_text("adamw_8bit: expected 2 inputs and 5 or 6 outputs, got %d and %d", c.n_in, c.n_out);
  if (c.in[1].dtype != F32) return error_text("adamw_8bit: expected an f32 coefficient, got dtype code %d", c.in[1].dtype);
  const int32_t wanted[] = {c.out[0].dtype == BF16 ? BF16 : F32, U8, F32, U8, F32};
  for (int i = 0; i < c.n_out; i++) {
    const int64_t expected = i == 2 || i == 4 ? blocks : n;
    if (c.out[i].numel != expected || (i < 5 && c.out[i].dtype != wanted[i]))
      return error_text("adamw_8bit: expected %lld elements of dtype code %d in output %d, got %lld of code %d", (long long)expected,
                        i < 5 ? wanted[i] : int32_t(BF16), i, (long long)c.out[i].numel, c.out[i].dtype);
  }
  if (c.n_out < 6) return nullptr;
  if (c.out[0].dtype != F32) return error_text("adamw_8bit: expected no copy of master weights that are bf16 themselves");
  if (c.out[5].dtype != BF16 && c.out[5].dtype != F16)
    return error_text("adamw_8bit: expected a bf16 or f16 copy of the master weights, got dtype code %d", c.out[5].dtype);
  return nullptr;
}

}  // namespace

KERNEL(adamw_8bit, kFloats) {
  if (const char* error = check(c)) return error;
  const int64_t n = c.in[0].numel;
  if (n == 0) return nullptr;
  const double lr = c.attrs[0], beta1 = c.attrs[1], beta2 = c.attrs[2], decay = c.attrs[4], bias1 = c.attrs[5], bias2 = c.attrs[6];
  const Adam8 a = {constant(decay), constant(1 - beta1), constant(beta1), constant(1 - beta2), constant(beta2),
                   constant(1 / std::sqrt(bias2)), constant(c.attrs[3]), constant(1 - lr * decay), constant(-(lr / bias1)),
                   c.attrs[7] != 0};
  by_float(c.in[0].dtype, [&](auto tg) {
    using G = typename decltype(tg)::type;
    const auto run = [&](auto* master, auto* low) {
      const Arrays<G, std::remove_pointer_t<decltype(master)>, std::remove_pointer_t<decltype(low)>> r = {
          c.in[0].as<const G>(), master, {c.out[1].as<uint8_t>(), c.out[3].as<uint8_t>()},
          {c.out[2].as<float>(), c.out[4].as<float>()}, low};
      const bool aligned = is_aligned(r.grad, kPack * sizeof(G)) && is_aligned(master, kPack * sizeof(*master)) &&
                           is_aligned(r.code[0], kPack) && is_aligned(r.code[1], kPack) && is_aligned(low, kPack * sizeof(*low));
      const unsigned grid = grid_for(n, kCodeBlock * kWarps, 8);
      const float* coefficient = c.in[1].as<const float>();
      if (aligned) update_blocks<true><<<grid, kThreads, 0, c.stream>>>(r, coefficient, n, a);
      else update_blocks<false><<<grid, kThreads, 0, c.stream>>>(r, coefficient, n, a);
    };
    if (c.out[0].dtype == BF16) return run(c.out[0].as<bf16>(), static_cast<bf16*>(nullptr));
    if (c.n_out > 5 && c.out[5].dtype == F16) return run(c.out[0].as<float>(), c.out[5].as<f16>());
    run(c.out[0].as<float>(), c.n_out > 5 ? c.out[5].as<bf16>() : static_cast<bf16*>(nullptr));
  });
  return nullptr;
}

KERNEL(decode_8bit, dtype_bit(F32)) {
  const View &from = c.in[0], &scales = c.in[1], &to = c.out[0];
  const int64_t n = from.numel, blocks = (n + kCodeBlock - 1) / kCodeBlock;
  if (from.dtype != U8 || to.numel != n || scales.numel != blocks)
    return error_text("decode_8bit: expected u8 codes, as many values and a scale for every 256 of them, got dtype code %d, %lld, %lld and %lld",
                      from.dtype, (long long)n, (long long)to.numel, (long long)scales.numel);
  if (n == 0) return nullptr;
  const int which = c.attrs[0] != 0 ? kFirst : kSecond;
  decode_kernel<<<unsigned(blocks), kCodeBlock, 0, c.stream>>>(from.as<const uint8_t>(), scales.as<const float>(), to.as<float>(), n, which);
  return nullptr;
}

}  // namespace ds
