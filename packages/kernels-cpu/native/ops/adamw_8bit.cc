// One AdamW step over a flat range, moments in 8-bit dynamic codes with a scale for each 256 elements (Dettmers et al., 2022);
// the formula is adamw.cc's, in f32, on decoded moments:
//   m = value[code] scale,  ... the step ...,  scale = max |m| of the block,  code = nearest(m / scale)
// A second moment that is not zero keeps a code that is not zero.
#include "../bytes.h"
#include "../dynamic_code.h"
#include "../optimizer.h"

namespace ds {
namespace DS_ISA_NS {

static constexpr DynamicCode kFirst = dynamic_code(true), kSecond = dynamic_code(false);

struct Adam8 {
  vf weight_decay, one_minus_beta1, beta1, one_minus_beta2, beta2, root_bias2, eps, decay, minus_step;
  bool decoupled;
};

// The codes of x, |x| <= 1.
template <bool has_sign> DS_INLINE vi code_of(const DynamicCode& codes, vf x) {
  const vf magnitude = vabs(x);
  vi bucket = (as_int(magnitude) >> kBucketBits) - kLowestBucket;
  bucket = bucket < 0 ? vi{} : bucket;
  const vi first = gather(codes.first, bucket);
  const vf boundary = gather(codes.boundary, first);
  // Comparisons are -1 where they hold.
  if (!has_sign) return first - (vi)(magnitude > boundary);
  // The mirror image: of -x the code is 2 zero - code(x), but a boundary belongs to the smaller code, so there to the larger magnitude;
  // and nothing stands for -1.
  const vi negative = as_int(x) < 0;
  const vi code = first - (vi)((magnitude > boundary) | ((magnitude == boundary) & negative));
  const vi mirrored = 2 * codes.zero - code;
  return negative ? (mirrored < 0 ? vi{} : mirrored) : code;
}

DS_INLINE void decode(const DynamicCode& codes, const uint8_t* from, float scale, float* to) {
  for (int64_t i = 0; i < kCodeBlock; i += VL) store(to + i, gather(codes.value, load_bytes(from + i)) * scale);
}

DS_INLINE float largest(const float* x) {
  vf top = {};
  for (int64_t i = 0; i < kCodeBlock; i += VL) top = vmax(vabs(load(x + i)), top);
  return hmax(top);
}

// The codes of a block's moments.
template <bool has_sign> DS_INLINE void encode(const DynamicCode& codes, const float* x, uint8_t* to, float* scale) {
  const float top = largest(x);
  *scale = top;
  const vf divisor = splat(top == 0 ? 1.0f : top);
  for (int64_t i = 0; i < kCodeBlock; i += VL) {
    const vf moments = load(x + i);
    vi code = code_of<has_sign>(codes, moments / divisor);
    if (!has_sign) code -= (vi)(code == 0) & (vi)(moments > 0.0f);
    store_bytes(to + i, code);
  }
}

// A block of n elements. What a short one lacks counts as moments of zero.
template <class G, class P, class L>
static void update_block(const Adam8& a, int64_t n, const G* grad, vf coefficient, P* master, uint8_t* first, float* first_scale,
                         uint8_t* second, float* second_scale, L* low) {
  float m[kCodeBlock], v[kCodeBlock];
  decode(kFirst, first, *first_scale, m);
  decode(kSecond, second, *second_scale, v);
  for_vectors(0, n, [&](int64_t i, auto lanes) {
    vf p = load(master + i, lanes), g = load(grad + i, lanes) * coefficient;
    if (!a.decoupled) g = fused(a.weight_decay, p, g);
    const vf mean = fused(a.one_minus_beta1, g, a.beta1 * load(m + i, lanes));
    const vf square = fused(a.one_minus_beta2 * g, g, a.beta2 * load(v + i, lanes));
    if (a.decoupled) p = p * a.decay;
    p = fused(a.minus_step, mean / (vsqrt(square) * a.root_bias2 + a.eps), p);
    store(m + i, mean, lanes);
    store(v + i, square, lanes);
    store(master + i, p, lanes);
    store_copy(at(low, i), p, lanes);
  });
  for (int64_t i = n; i < kCodeBlock; i++) m[i] = v[i] = 0;
  encode<true>(kFirst, m, first, first_scale);
  encode<false>(kSecond, v, second, second_scale);
}

// The same of the last block, whose codes end before a vector of them may.
template <class G, class P, class L>
static void update_last(const Adam8& a, int64_t n, const G* grad, vf coefficient, P* master, uint8_t* first, float* first_scale,
                        uint8_t* second, float* second_scale, L* low) {
  uint8_t codes[2][kCodeBlock] = {};
  memcpy(codes[0], first, (size_t)n);
  memcpy(codes[1], second, (size_t)n);
  update_block(a, n, grad, coefficient, master, codes[0], first_scale, codes[1], second_scale, low);
  memcpy(first, codes[0], (size_t)n);
  memcpy(second, codes[1], (size_t)n);
}

static const char* check(const Call& c) {
  const int64_t n = c.in[0].numel, blocks = (n + kCodeBlock - 1) / kCodeBlock;
  if (c.n_in != 2 || c.n_out < 5 || c.n_out > 6)
    return error_text("adamw_8bit: expected 2 inputs and 5 or 6 outputs, got %d and %d", c.n_in, c.n_out);
  const int32_t wanted[] = {c.out[0].dtype == BF16 ? BF16 : F32, U8, F32, U8, F32};
  for (int i = 0; i < c.n_out; i++) {
    const int64_t expected = i == 2 || i == 4 ? blocks : n;
    if (c.out[i].numel != expected || (i < 5 && c.out[i].dtype != wanted[i]))
      return error_text("adamw_8bit: expected %lld elements of dtype code %d in output %d, got %lld of code %d", (long long)expected,
                        i < 5 ? wanted[i] : BF16, i, (long long)c.out[i].numel, c.out[i].dtype);
  }
  if (c.n_out < 6) return nullptr;
  if (c.out[0].dtype != F32) return error_text("adamw_8bit: expected no copy of master weights that are bf16 themselves");
  if (c.out[5].dtype != BF16 && c.out[5].dtype != F16)
    return error_text("adamw_8bit: expected a bf16 or f16 copy of the master weights, got dtype code %d", c.out[5].dtype);
  return nullptr;
}

KERNEL(adamw_8bit, kFloats) {
  if (const char* error = check(c)) return error;
  const View& grad = c.in[0];
  const float coefficient = *c.in[1].as<const float>();
  if (coefficient != coefficient) return nullptr;
  const double lr = c.attrs[0], beta1 = c.attrs[1], beta2 = c.attrs[2], decay = c.attrs[4], bias1 = c.attrs[5], bias2 = c.attrs[6];
  const Adam8 a = {constant(decay), constant(1 - beta1),  constant(beta1),
                   constant(1 - beta2), constant(beta2), constant(1 / __builtin_sqrt(bias2)),
                   constant(c.attrs[3]), constant(1 - lr * decay), constant(-(lr / bias1)), c.attrs[7] != 0};
  const int64_t n = grad.numel, blocks = (n + kCodeBlock - 1) / kCodeBlock;
  by_float(grad.dtype, [&](auto tg) {
    const auto* g = grad.as<const decltype(tg)>();
    auto run = [&](auto* master, auto* low) {
      parallel(blocks, 64, [&](int64_t begin, int64_t end, int) {
        for (int64_t b = begin; b < end; b++) {
          const int64_t i = b * kCodeBlock, left = n - i;
          const auto update = [&](const auto& body, int64_t count) {
            body(a, count, g + i, splat(coefficient), master + i, c.out[1].as<uint8_t>() + i, c.out[2].as<float>() + b,
                 c.out[3].as<uint8_t>() + i, c.out[4].as<float>() + b, at(low, i));
          };
          if (left >= kCodeBlock) update([](auto&&... all) { update_block(all...); }, kCodeBlock);
          else update([](auto&&... all) { update_last(all...); }, left);
        }
      });
    };
    if (c.out[0].dtype == BF16) return run(c.out[0].as<bf16>(), (NoCopy*)nullptr);
    if (c.n_out == 5) return run(c.out[0].as<float>(), (NoCopy*)nullptr);
    if (c.out[5].dtype == BF16) return run(c.out[0].as<float>(), c.out[5].as<bf16>());
    run(c.out[0].as<float>(), c.out[5].as<f16>());
  });
  return nullptr;
}

KERNEL(decode_8bit, dtype_bit(F32)) {
  const View &from = c.in[0], &scales = c.in[1], &to = c.out[0];
  const int64_t n = from.numel, blocks = (n + kCodeBlock - 1) / kCodeBlock;
  if (from.dtype != U8 || to.numel != n || scales.numel != blocks)
    return error_text("decode_8bit: expected u8 codes, as many values and a scale for every 256 of them, got dtype code %d, %lld, %lld and %lld",
                      from.dtype, (long long)n, (long long)to.numel, (long long)scales.numel);
  const DynamicCode& codes = c.attrs[0] != 0 ? kFirst : kSecond;
  parallel(blocks, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t end = (b + 1) * kCodeBlock < n ? (b + 1) * kCodeBlock : n;
      for (int64_t i = b * kCodeBlock; i < end; i++)
        to.as<float>()[i] = codes.value[from.as<const uint8_t>()[i]] * scales.as<const float>()[b];
    }
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
