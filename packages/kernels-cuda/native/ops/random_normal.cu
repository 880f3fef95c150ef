// Initial values of a parameter: elements `start` and on of a normal or uniform random array, made where they are kept.
//   u_i = (word >>> 8) 2^-24 of Philox, z_2k = sqrt(-2 log(1 - u_2k)) cos(2 pi u_2k+1), z_2k+1 with the sine (Box and Muller)
//   random_normal: mean + std z_i, random_uniform: low + (high - low) u_i
// Computed in double and rounded to f32, then to the dtype: an element's bits depend on the key and its index alone, and a
// low-precision copy is the rounding of the f32 master.
#include "device.cuh"
#include "philox.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ double uniform_of(uint32_t word) { return double(word >> 8) * 0x1p-24; }

struct Normal {
  double mean, std;

  __device__ __forceinline__ void pair(double u0, double u1, double& even, double& odd) const {
    const double radius = sqrt(-2 * log(1 - u0));  // 1 - u is in (0, 1], where the logarithm is finite
    double sine, cosine;
    sincos(2 * 3.14159265358979323846 * u1, &sine, &cosine);
    even = mean + std * (radius * cosine);
    odd = mean + std * (radius * sine);
  }
};

struct Uniform {
  double low, range;

  __device__ __forceinline__ void pair(double u0, double u1, double& even, double& odd) const {
    even = low + range * u0;
    odd = low + range * u1;
  }
};

// Thread t has the block of four that begins at element 4 (start / 4 + t) of the array; y[0] is element `start`.
template <class T, class F>
__global__ void __launch_bounds__(kThreads) random_kernel(T* y, int64_t n, int64_t start, int64_t blocks, PhiloxKey key, F f) {
  const int64_t t = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  if (t >= blocks) return;
  const int64_t block = start / 4 + t;
  const uint4 word = philox(key, uint64_t(block));
  double value[4];
  f.pair(uniform_of(word.x), uniform_of(word.y), value[0], value[1]);
  f.pair(uniform_of(word.z), uniform_of(word.w), value[2], value[3]);
  const int64_t at = block * 4 - start;
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (at + i >= 0 && at + i < n) y[at + i] = from_float<T>(float(value[i]));
}

// attrs: two of the distribution, then seedLow, seedHigh, stream, start.
template <class F> const char* draw(const Call& c, const char* op, const F& f) {
  if (c.n_out != 1) return error_text("%s: expected 1 output, got %d", op, c.n_out);
  const View& y = c.out[0];
  if (y.numel == 0) return nullptr;
  const PhiloxKey key = {uint32_t(c.attrs[2]), uint32_t(c.attrs[3]), 0, uint32_t(c.attrs[4])};
  const int64_t start = int64_t(c.attrs[5]), blocks = (start + y.numel - 1) / 4 - start / 4 + 1;
  by_float(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    random_kernel<<<unsigned((blocks + kThreads - 1) / kThreads), kThreads, 0, c.stream>>>(y.as<T>(), y.numel, start, blocks, key, f);
  });
  return nullptr;
}

}  // namespace

KERNEL(random_normal, kFloats) { return draw(c, "random_normal", Normal{c.attrs[0], c.attrs[1]}); }

KERNEL(random_uniform, kFloats) { return draw(c, "random_uniform", Uniform{c.attrs[0], c.attrs[1] - c.attrs[0]}); }

}  // namespace ds
