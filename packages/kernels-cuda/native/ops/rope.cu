// Rotary position embedding (Su et al., "RoFormer", 2021), half-split as Llama does it: x [B, T, heads x D], pairs (i, i + R/2) of
// the first R elements of each of the first `rotated` heads turn by sign * angle(position + t, i); the rest is copied.
// cos, sin [T', R/2], T' >= position + T. Where positions i32 [B, T] are given, they stand in for t.
#include "../elementwise.cuh"
#include "../fault.cuh"

namespace ds {
namespace {

constexpr int kThreads = 256;

struct Shape {
  unsigned length, heads, rotated, vectors;  // vectors of N in half of what turns in a head
  int half, width;                           // of what turns; of a head
  int64_t position, table;  // of the first token; rows of the table
  const int* positions;     // of every token, or null
  Fault* fault;
  float sign;
};

// An item is N pairs of one head of one row.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(unsigned items, int64_t first_row, Shape s, const T* x, const float* cos, const float* sin, T* y) {
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= items) return;
  const unsigned rest = item / s.vectors, i = (item - rest * s.vectors) * N;
  const unsigned row_here = rest / s.heads, head = rest - row_here * s.heads;
  if (head >= s.rotated && x == y) return;
  const int64_t row = first_row + row_here, base = (row * s.heads + head) * s.width + i;
  Pack<T, N> low = load_pack<N>(x + base), high = load_pack<N>(x + base + s.half);
  if (head < s.rotated) {
    int64_t place = s.position + (s.positions == nullptr ? int64_t(unsigned(row) % s.length) : s.positions[row]);
    if (place < 0 || place >= s.table) {
      if (head == 0 && i == 0) device_fault(s.fault, kFaultPosition, place, row, s.table);
      place = 0;
    }
    const int64_t at = place * s.half + i;
    float a[N], b[N], p[N], q[N], co[N], si[N];
    load_table(cos + at, co);
    load_table(sin + at, si);
    unpack(low, a);
    unpack(high, b);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const float turned = si[j] * s.sign;
      p[j] = fmaf(a[j], co[j], -(b[j] * turned));
      q[j] = fmaf(b[j], co[j], a[j] * turned);
    }
    low = packed<T>(p);
    high = packed<T>(q);
  }
  store_pack(y + base, low);
  store_pack(y + base + s.half, high);
}

// Elements from 2 half on of every head, where a part of each turns. An item is N of them.
template <int N, class T>
__global__ void __launch_bounds__(kThreads) copy_rest_kernel(int64_t items, unsigned in_head, Shape s, const T* x, T* y) {
  const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const int64_t head = item / in_head, at = head * s.width + 2 * s.half + (item - head * in_head) * N;
  store_pack(y + at, load_pack<N>(x + at));
}

template <int N, class T> void rotate(const Call& c, Shape s) {
  s.vectors = unsigned(s.half / N);
  const int64_t in_row = int64_t(s.vectors) * s.heads, rows = c.in[0].rows();
  const int64_t most = std::max<int64_t>(1, (int64_t(1) << 30) / in_row);  // items count in 32 bits
  for (int64_t row = 0; row < rows; row += most) {
    const unsigned items = unsigned(std::min(most, rows - row) * in_row);
    rope_kernel<N><<<(items + kThreads - 1) / kThreads, kThreads, 0, c.stream>>>(
        items, row, s, c.in[0].as<const T>(), c.in[1].as<const float>(), c.in[2].as<const float>(), c.out[0].as<T>());
  }
  const unsigned in_head = unsigned((s.width - 2 * s.half) / N);
  const int64_t items = rows * s.heads * in_head;
  if (items > 0 && c.in[0].data != c.out[0].data)
    copy_rest_kernel<N><<<unsigned((items + kThreads - 1) / kThreads), kThreads, 0, c.stream>>>(items, in_head, s, c.in[0].as<const T>(),
                                                                                               c.out[0].as<T>());
}

}  // namespace

KERNEL(rope, kFloats) {
  const int64_t rotated = int64_t(c.attrs[0]), d = int64_t(c.attrs[1]), position = int64_t(c.attrs[3]), turning = int64_t(c.attrs[4]);
  const View &x = c.in[0], &cos = c.in[1], &sin = c.in[2], &y = c.out[0];
  if (turning <= 0 || turning % 2 != 0 || turning > d || rotated * d > x.cols() || x.cols() % d != 0)
    return error_text("rope: %lld elements of %lld heads of %lld in rows of %lld", (long long)turning, (long long)rotated, (long long)d,
                      (long long)x.cols());
  for (const View& table : {cos, sin})
    if (table.dtype != F32 || table.cols() != turning / 2 || position + x.dims[1] > table.dims[0])
      return error_text("rope: position %lld of %lld angles, the table has %lld of %lld", (long long)(position + x.dims[1] - 1),
                        (long long)(turning / 2), (long long)table.dims[0], (long long)table.cols());
  if (y.numel != x.numel || y.dtype != x.dtype) return error_text("rope: y must be like x");
  if (x.numel == 0) return nullptr;
  Shape s{};
  s.length = unsigned(x.dims[1]), s.heads = unsigned(x.cols() / d), s.rotated = unsigned(rotated), s.half = int(turning / 2), s.width = int(d);
  s.position = position, s.table = cos.dims[0], s.sign = float(c.attrs[2]);
  if (c.n_in > 3) {
    const View& positions = c.in[3];
    if (positions.dtype != I32 || positions.numel != x.rows())
      return error_text("rope: positions must be i32, one for each of %lld rows", (long long)x.rows());
    s.positions = positions.as<const int>(), s.fault = fault_slot();
  }
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const bool aligned = s.half % kVector<T> == 0 && s.width % kVector<T> == 0 && is_aligned(x.data, 16) && is_aligned(y.data, 16) &&
                         is_aligned(cos.data, 16) && is_aligned(sin.data, 16);
    if (aligned)
      rotate<kVector<T>, T>(c, s);
    else
      rotate<1, T>(c, s);
  });
  return nullptr;
}

}  // namespace ds
