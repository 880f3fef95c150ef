// y = x in y's dtype, any pair. Floats round to nearest even; float to integer truncates and saturates (NaN gives 0); integer to a
// narrower integer keeps the low bits; anything to bool is x != 0.
#include "../elementwise.cuh"

namespace ds {
namespace {

struct Same {
  __device__ __forceinline__ void operator()(float x, float, float& y, float&) const { y = x; }
};

// The bounds are powers of two or small, so exact as floats; `high` itself is out of range for the wide types.
template <class D> __device__ D saturated(float x, float low, float high, D min, D max) {
  return x != x ? D(0) : x <= low ? min : x >= high ? max : D(x);
}

__device__ float float_at(const void* x, int dtype, int64_t i) {
  switch (dtype) {
    case F16: return to_float(static_cast<const f16*>(x)[i]);
    case BF16: return to_float(static_cast<const bf16*>(x)[i]);
    default: return static_cast<const float*>(x)[i];
  }
}

__device__ int64_t integer_at(const void* x, int dtype, int64_t i) {
  switch (dtype) {
    case I32: return static_cast<const int32_t*>(x)[i];
    case I64: return static_cast<const int64_t*>(x)[i];
    case I8: return static_cast<const int8_t*>(x)[i];
    case BOOL: return static_cast<const uint8_t*>(x)[i] != 0;
    default: return static_cast<const uint8_t*>(x)[i];
  }
}

__device__ void set_float(void* y, int dtype, int64_t i, float value) {
  switch (dtype) {
    case F16: static_cast<f16*>(y)[i] = from_float<f16>(value); break;
    case BF16: static_cast<bf16*>(y)[i] = from_float<bf16>(value); break;
    default: static_cast<float*>(y)[i] = value;
  }
}

__device__ void set_integer(void* y, int dtype, int64_t i, int64_t value) {
  switch (dtype) {
    case I32: static_cast<int32_t*>(y)[i] = int32_t(value); break;
    case I64: static_cast<int64_t*>(y)[i] = value; break;
    case BOOL: static_cast<uint8_t*>(y)[i] = value != 0; break;
    default: static_cast<uint8_t*>(y)[i] = uint8_t(value);  // i8 has the same bits
  }
}

__device__ void set_truncated(void* y, int dtype, int64_t i, float value) {
  switch (dtype) {
    case I32: return set_integer(y, dtype, i, saturated<int32_t>(value, -0x1p31f, 0x1p31f, INT32_MIN, INT32_MAX));
    case I64: return set_integer(y, dtype, i, saturated<int64_t>(value, -0x1p63f, 0x1p63f, INT64_MIN, INT64_MAX));
    case I8: return set_integer(y, dtype, i, saturated<int8_t>(value, -128.0f, 127.0f, -128, 127));
    case BOOL: return set_integer(y, dtype, i, value != 0);
    default: return set_integer(y, dtype, i, saturated<uint8_t>(value, 0.0f, 255.0f, 0, 255));
  }
}

__host__ __device__ bool is_float(int dtype) { return (kFloats >> dtype & 1) != 0; }

// With an integer on either side: ids and masks, rarely and few, so one kernel for all pairs.
__global__ void cast_kernel(int64_t n, const void* x, int from, void* y, int to) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    if (is_float(from))
      set_truncated(y, to, i, float_at(x, from, i));
    else if (is_float(to))
      set_float(y, to, i, float(integer_at(x, from, i)));
    else
      set_integer(y, to, i, integer_at(x, from, i));
  }
}

}  // namespace

KERNEL(cast, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  if (x.numel != y.numel) return error_text("cast: x has %lld elements, y %lld", (long long)x.numel, (long long)y.numel);
  if (x.numel == 0) return nullptr;
  if (!is_float(x.dtype) || !is_float(y.dtype)) {
    cast_kernel<<<grid_for(x.numel, 256), 256, 0, c.stream>>>(x.numel, x.data, x.dtype, y.data, y.dtype);
    return nullptr;
  }
  by_float(x.dtype, [&](auto tx) {
    by_float(y.dtype, [&](auto ty) {
      using X = typename decltype(tx)::type;
      using Y = typename decltype(ty)::type;
      map(c.stream, x.numel, Same{}, x.as<const X>(), kNone, y.as<Y>(), kNone);
    });
  });
  return nullptr;
}

}  // namespace ds
