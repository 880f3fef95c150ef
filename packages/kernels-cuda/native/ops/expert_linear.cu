// Products of rows by the weights of their experts; see core/src/ops/expert-linear.ts.
#include <algorithm>

#include "../grouped_mma.cuh"
#include "../grouped_plain.cuh"

namespace ds {
namespace {

using grouped::Gather;
using grouped::Product;
using grouped::Side;

// nullptr, or why the assignments can't be divided by k as `Gather` does.
const char* set_gather(const char* op, const View& order, int64_t k, int64_t rows, Gather& gather) {
  if (rows * (k ? k : 1) != order.numel)
    return error_text("%s: %lld rows are not those of %lld assignments, %lld a token", op, (long long)rows, (long long)order.numel, (long long)k);
  if (order.numel * k >= int64_t(1) << 32)
    return error_text("%s: %lld assignments, %lld a token, are too many", op, (long long)order.numel, (long long)k);
  gather = {order.as<const int32_t>(), uint32_t(k), k > 1 ? uint32_t(((int64_t(1) << 32) + k - 1) / k) : 0u};
  return nullptr;
}

template <Side side, class T, class TC> const char* start(const Product<T, TC>& p, int64_t rows, bool aligned, cudaStream_t stream) {
  constexpr bool kHalf = sizeof(T) == 2;
  // No more blocks than there may be tiles: every expert may end in one that is not full.
  const auto blocks = [&](int64_t tile_m, int64_t tile_n, int waves) {
    const int64_t m = side == Side::kWeight ? (p.out + tile_m - 1) / tile_m * p.experts : rows / tile_m + std::min<int64_t>(p.experts, rows);
    const int64_t n = ((side == Side::kForward ? p.out : p.size) + tile_n - 1) / tile_n * (side == Side::kForward ? p.parts : 1);
    return unsigned(std::max<int64_t>(1, std::min<int64_t>(m * n, int64_t(device_properties().multiprocessors) * waves)));
  };
  if constexpr (kHalf) {
    if (aligned) {
      const auto kernel = grouped::multiply_mma<side, T, TC>;
      const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, grouped::kSharedBytes);
      if (error != cudaSuccess) return cuda_error_text("a grouped product: room in shared memory", error);
      kernel<<<blocks(grouped::kM, grouped::kN, 1), grouped::kThreads, grouped::kSharedBytes, stream>>>(p);
      return nullptr;
    }
  }
  using namespace grouped::plain;
  multiply<side, T, TC><<<blocks(kTile, kTile, 8), kThreads, 0, stream>>>(p);
  return nullptr;
}

const char* check_common(const char* op, const View& order, const View& offsets, int64_t matrices) {
  if (order.dtype != I32 || offsets.dtype != I32) return error_text("%s: order and offsets must be i32", op);
  if (matrices > grouped::kMostMatrices) return error_text("%s: at most %d matrices at once, got %lld", op, grouped::kMostMatrices, (long long)matrices);
  return nullptr;
}

// Whether tensor cores can load rows of these: 16 bytes at a time.
bool all_aligned(std::initializer_list<const View*> views, int64_t columns) {
  for (const View* v : views)
    if (v->cols() % 8 || !is_aligned(v->data, 16)) return false;
  return columns % 8 == 0;
}

template <Side side> const char* rows_by_weights(const char* op, const Call& c) {
  const View &x = c.in[0], &order = c.in[1], &offsets = c.in[2], &y = c.out[0];
  const int64_t n = int64_t(c.attrs[0]), k = int64_t(c.attrs[1]), experts = offsets.numel - 1;
  if (const char* error = check_common(op, order, offsets, n * experts)) return error;
  const View* w = c.in + 3;
  const int64_t out = w[0].dims[0], size = w[0].dims[1];
  const int64_t into = side == Side::kForward ? size : n * out, from = side == Side::kForward ? n * out : size;
  if (n < 1 || n > 2 || c.n_in != 3 + n * experts || x.cols() != into || y.cols() != from || y.rows() != order.numel || y.dtype != x.dtype)
    return error_text("%s: %lld weights [%lld, %lld] of %lld experts, rows of %lld and %lld do not fit together (one or two weights each)", op,
                      (long long)n, (long long)out, (long long)size, (long long)experts, (long long)x.cols(), (long long)y.cols());
  if (y.numel == 0) return nullptr;
  bool aligned = all_aligned({&x, &y}, out) && size % 8 == 0;
  for (int64_t i = 0; i < n * experts; i++) aligned = aligned && is_aligned(w[i].data, 16);
  const char* result = nullptr;
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    Product<T, T> p = {};
    p.offsets = offsets.as<const int32_t>(), p.experts = int(experts);
    p.out = int(out), p.size = int(size), p.parts = int(n);
    p.a = x.as<const T>(), p.lda = x.cols(), p.c = y.as<T>();
    for (int64_t i = 0; i < n * experts; i++) p.matrices[i] = w[i].data;
    result = set_gather(op, order, k, x.rows(), p.gather_a);
    if (!result) result = start<side>(p, order.numel, aligned, c.stream);
  });
  return result;
}

template <class T, class TC>
const char* weight_gradients(const View& dy, const View& x, const View& order, const View& offsets, const Call& c, bool aligned) {
  Product<T, TC> p = {};
  p.offsets = offsets.as<const int32_t>(), p.experts = c.n_out, p.first = int(c.attrs[0]);
  p.out = int(c.out[0].rows()), p.size = int(x.cols()), p.parts = 1;
  p.a = dy.as<const T>() + int64_t(c.attrs[1]), p.lda = dy.cols();
  p.b = x.as<const T>(), p.ldb = x.cols();
  p.accumulate = c.attrs[4] != 0;
  for (int i = 0; i < c.n_out; i++) p.matrices[i] = c.out[i].data;
  if (const char* error = set_gather("expert_linear_dw", order, int64_t(c.attrs[2]), dy.rows(), p.gather_a)) return error;
  if (const char* error = set_gather("expert_linear_dw", order, int64_t(c.attrs[3]), x.rows(), p.gather_b)) return error;
  return start<Side::kWeight>(p, order.numel, aligned, c.stream);
}

}  // namespace

KERNEL(expert_linear, kFloats) { return rows_by_weights<Side::kForward>("expert_linear", c); }
KERNEL(expert_linear_dx, kFloats) { return rows_by_weights<Side::kInput>("expert_linear_dx", c); }

KERNEL(expert_linear_dw, kFloats) {
  const View &dy = c.in[0], &x = c.in[1], &order = c.in[2], &offsets = c.in[3], &dw = c.out[0];
  const int64_t first = int64_t(c.attrs[0]), offset = int64_t(c.attrs[1]);
  if (const char* error = check_common("expert_linear_dw", order, offsets, c.n_out)) return error;
  bool fits = first + c.n_out <= offsets.numel - 1 && x.dtype == dy.dtype && (dw.dtype == dy.dtype || dw.dtype == F32);
  bool aligned = all_aligned({&dy, &x}, offset) && dw.rows() % 8 == 0;
  for (int i = 0; i < c.n_out; i++) {
    fits = fits && c.out[i].cols() == x.cols() && c.out[i].rows() == dw.rows() && c.out[i].dtype == dw.dtype && offset + dw.rows() <= dy.cols();
    aligned = aligned && is_aligned(c.out[i].data, 16);
  }
  if (!fits) return error_text("expert_linear_dw: dy, x and the gradients of %d experts from %lld on do not fit together", c.n_out, (long long)first);
  const char* result = nullptr;
  by_float(dy.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    result = dw.dtype == F32 ? weight_gradients<T, float>(dy, x, order, offsets, c, aligned) : weight_gradients<T, T>(dy, x, order, offsets, c, aligned);
  });
  return result;
}

}  // namespace ds
