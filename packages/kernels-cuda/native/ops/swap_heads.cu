// Rows of groups x heads x D elements, written as heads x groups x D.
#include "../elementwise.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256;

// An item is a vector of N elements of y.
template <int N, class T>
__global__ void __launch_bounds__(kThreads) swap_heads_kernel(int64_t items, int groups, int heads, int vectors, const T* x, T* y) {
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const int64_t head = item / vectors, row = head / (groups * heads);
  const int i = int(item - head * vectors), place = int(head - row * groups * heads), h = place / groups, g = place - h * groups;
  const int64_t from = (row * groups + g) * heads + h;
  store_pack(y + item * N, load_pack<N>(x + (from * vectors + i) * N));
}

template <int N, class T> void swap(const Call& c, int groups, int heads, int64_t size) {
  const int64_t items = c.in[0].numel / N;
  swap_heads_kernel<N><<<unsigned((items + kThreads - 1) / kThreads), kThreads, 0, c.stream>>>(items, groups, heads, int(size / N),
                                                                                              c.in[0].as<const T>(), c.out[0].as<T>());
}

}  // namespace

KERNEL(swap_heads, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  const int64_t groups = int64_t(c.attrs[0]), heads = int64_t(c.attrs[1]);
  if (groups <= 0 || heads <= 0 || x.cols() % (groups * heads) != 0 || y.numel != x.numel || y.dtype != x.dtype || x.data == y.data)
    return error_text("swap_heads: %lld groups of %lld heads in rows of %lld, and y another tensor like x", (long long)groups,
                      (long long)heads, (long long)x.cols());
  if (x.numel == 0) return nullptr;
  const int64_t size = x.cols() / (groups * heads);
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (size % kVector<T> == 0 && is_aligned(x.data, 16) && is_aligned(y.data, 16)) swap<kVector<T>, T>(c, int(groups), int(heads), size);
    else swap<1, T>(c, int(groups), int(heads), size);
  });
  return nullptr;
}

}  // namespace ds
