// Initial values of a parameter: elements `start` and on of a normal or uniform random array, made where they are kept.
//   u_i = (word >>> 8) 2^-24 of Philox, z_2k = sqrt(-2 log(1 - u_2k)) cos(2 pi u_2k+1), z_2k+1 with the sine (Box and Muller)
//   random_normal: mean + std z_i, random_uniform: low + (high - low) u_i
// Computed in double and rounded to f32, then to the dtype: an element's bits depend on the key and its index alone, and a
// low-precision copy is the rounding of the f32 master.
#include "../elementwise.h"
#include "../philox.h"

namespace ds {
namespace DS_ISA_NS {
namespace {

constexpr int64_t kBlocks = 256;  // of four elements, for a task

// pair(u0, u1, value): the two elements of an even index and the next. attrs: two of the distribution, then seedLow, seedHigh,
// stream, start.
template <class F> void draw(const Call& c, const F& pair) {
  const View& y = c.out[0];
  const PhiloxKey key = {(uint32_t)c.attrs[2], (uint32_t)c.attrs[3], 0, (uint32_t)c.attrs[4]};
  const int64_t start = (int64_t)c.attrs[5], first = start / 4;
  by_float(y.dtype, [&](auto t) {
    auto* to = y.as<decltype(t)>();
    parallel((start + y.numel + 3) / 4 - first, kBlocks, [&](int64_t begin, int64_t end, int) {
      for (int64_t block = first + begin; block < first + end; block++) {
        uint32_t word[4];
        philox(key, (uint64_t)block, word);
        double value[4];
        for (int i = 0; i < 4; i += 2) pair((word[i] >> 8) * 0x1p-24, (word[i + 1] >> 8) * 0x1p-24, value + i);
        for (int i = 0; i < 4; i++) {
          const int64_t at = block * 4 - start + i;
          if (at >= 0 && at < y.numel) store_scalar(to + at, (float)value[i]);
        }
      }
    });
  });
}

}  // namespace

KERNEL(random_normal, kFloats) {
  const double mean = c.attrs[0], std = c.attrs[1];
  draw(c, [=](double u0, double u1, double* value) {
    const double radius = __builtin_sqrt(-2 * __builtin_log(1 - u0)), angle = 2 * 3.14159265358979323846 * u1;
    value[0] = mean + std * (radius * __builtin_cos(angle));
    value[1] = mean + std * (radius * __builtin_sin(angle));
  });
  return nullptr;
}

KERNEL(random_uniform, kFloats) {
  const double low = c.attrs[0], range = c.attrs[1] - c.attrs[0];
  draw(c, [=](double u0, double u1, double* value) {
    value[0] = low + range * u0;
    value[1] = low + range * u1;
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
