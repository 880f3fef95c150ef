// Gated activations (Shazeer, "GLU variants improve transformer", 2020): x = [gate, up] along the last axis, y = act(gate) up.
// x [rows, 2F], y [rows, F]. A Gate has `at<Fast>(g)`, act's value and derivative.
#pragma once
#include "activation.cuh"
#include "elementwise.cuh"

namespace ds {
namespace {

struct GateValue {
  float value, slope;
};

constexpr int kGatedThreads = 256;

// Where vector `item` of y (or dy) [rows, F] lies, and the gate that belongs to it; `up` is F elements further on.
template <int N> struct GatedPlace {
  int64_t y, gate;
  __device__ __forceinline__ GatedPlace(unsigned item, unsigned vectors_in_row, int64_t F) {
    const unsigned row = item / vectors_in_row;
    y = int64_t(item) * N;
    gate = row * 2 * F + int64_t(item - row * vectors_in_row) * N;
  }
};

constexpr int kGatedItems = 2;  // of a thread: more than enough in flight, and no loss of occupancy

template <class Gate, int N, class T>
__global__ void __launch_bounds__(kGatedThreads) gated_kernel(unsigned items, unsigned vectors_in_row, int64_t F, const T* x, T* y) {
  const unsigned first = blockIdx.x * (kGatedThreads * kGatedItems) + threadIdx.x;
  Pack<T, N> gate[kGatedItems], up[kGatedItems];
#pragma unroll
  for (int u = 0; u < kGatedItems; u++) {
    const unsigned item = first + u * kGatedThreads;
    if (item >= items) break;
    const GatedPlace<N> at(item, vectors_in_row, F);
    gate[u] = load_pack<N>(x + at.gate);
    up[u] = load_pack<N>(x + at.gate + F);
  }
#pragma unroll
  for (int u = 0; u < kGatedItems; u++) {
    const unsigned item = first + u * kGatedThreads;
    if (item >= items) break;
    float g[N], v[N], out[N];
    unpack(gate[u], g);
    unpack(up[u], v);
#pragma unroll
    for (int k = 0; k < N; k++) out[k] = Gate::template at<kFastMath<T>>(g[k]).value * v[k];
    store_pack(y + int64_t(item) * N, packed<T>(out));
  }
}

// y may be null; else it gets the forward result again.
template <class Gate, int N, class T>
__global__ void __launch_bounds__(kGatedThreads)
    gated_backward_kernel(unsigned items, unsigned vectors_in_row, int64_t F, const T* dy, const T* x, T* dx, T* y) {
  const unsigned first = blockIdx.x * (kGatedThreads * kGatedItems) + threadIdx.x;
  Pack<T, N> grad[kGatedItems], gate[kGatedItems], up[kGatedItems];
#pragma unroll
  for (int u = 0; u < kGatedItems; u++) {
    const unsigned item = first + u * kGatedThreads;
    if (item >= items) break;
    const GatedPlace<N> at(item, vectors_in_row, F);
    grad[u] = load_pack<N>(dy + at.y);
    gate[u] = load_pack<N>(x + at.gate);
    up[u] = load_pack<N>(x + at.gate + F);
  }
#pragma unroll
  for (int u = 0; u < kGatedItems; u++) {
    const unsigned item = first + u * kGatedThreads;
    if (item >= items) break;
    const GatedPlace<N> at(item, vectors_in_row, F);
    float d[N], g[N], v[N], out[N];
    unpack(grad[u], d);
    unpack(gate[u], g);
    unpack(up[u], v);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const GateValue gate = Gate::template at<kFastMath<T>>(g[k]);
      g[k] = d[k] * v[k] * gate.slope;
      d[k] = d[k] * gate.value;
      out[k] = gate.value * v[k];
    }
    store_pack(dx + at.gate, packed<T>(g));
    store_pack(dx + at.gate + F, packed<T>(d));
    if (y != nullptr) store_pack(y + at.y, packed<T>(out));
  }
}

static inline const char* check_halves(const char* op, const View& x, const View& y) {
  if (x.cols() != 2 * y.cols() || x.numel != 2 * y.numel || x.dtype != y.dtype)
    return error_text("%s: expected the last axis of x (%lld) to be twice that of y (%lld), same rows and dtype", op,
                      (long long)x.cols(), (long long)y.cols());
  return nullptr;
}

// launch(first row, items, items in a row) for pieces of [rows, F] in vectors of N whose items count in 32 bits.
template <class F> void in_row_pieces(int64_t rows, int64_t vectors_in_row, const F& launch) {
  const int64_t most = std::max<int64_t>(1, (int64_t(1) << 30) / vectors_in_row);
  for (int64_t row = 0; row < rows; row += most)
    launch(row, unsigned(std::min(most, rows - row) * vectors_in_row), unsigned(vectors_in_row));
}

template <class Gate, int N, class T> void gated_forward(cudaStream_t stream, const View& x, const View& y) {
  const int64_t F = y.cols();
  in_row_pieces(y.rows(), F / N, [&](int64_t row, unsigned items, unsigned vectors_in_row) {
    const unsigned blocks = (items + kGatedItems * kGatedThreads - 1) / (kGatedItems * kGatedThreads);
    gated_kernel<Gate, N><<<blocks, kGatedThreads, 0, stream>>>(items, vectors_in_row, F, x.as<const T>() + row * 2 * F, y.as<T>() + row * F);
  });
}

template <class Gate, int N, class T> void gated_backward(cudaStream_t stream, const View& dy, const View& x, const View& dx, const View* y) {
  const int64_t F = dy.cols();
  in_row_pieces(dy.rows(), F / N, [&](int64_t row, unsigned items, unsigned vectors_in_row) {
    const unsigned blocks = (items + kGatedItems * kGatedThreads - 1) / (kGatedItems * kGatedThreads);
    gated_backward_kernel<Gate, N><<<blocks, kGatedThreads, 0, stream>>>(items, vectors_in_row, F, dy.as<const T>() + row * F,
                                                              x.as<const T>() + row * 2 * F, dx.as<T>() + row * 2 * F,
                                                              y == nullptr ? nullptr : y->as<T>() + row * F);
  });
}

// Inputs dy, x; output dx, and once more y where that is no null: a layer that didn't keep its activation needs both, and x is read
// once for them.
template <class Gate> const char* run_gated_backward(const char* op, const Call& c, const View* y) {
  const View &dy = c.in[0], &x = c.in[1], &dx = c.out[0];
  if (const char* error = check_halves(op, x, dy)) return error;
  if (dx.numel != x.numel || dx.dtype != x.dtype) return error_text("%s: dx must be like x", op);
  if (y != nullptr && (y->numel != dy.numel || y->dtype != dy.dtype)) return error_text("%s: y must be like dy", op);
  if (dy.numel == 0) return nullptr;
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    const bool aligned = dy.cols() % kVector<T> == 0 && is_aligned(dy.data, 16) && is_aligned(x.data, 16) &&
                         is_aligned(dx.data, 16) && (y == nullptr || is_aligned(y->data, 16));
    if (aligned)
      gated_backward<Gate, kVector<T>, T>(c.stream, dy, x, dx, y);
    else
      gated_backward<Gate, 1, T>(c.stream, dy, x, dx, y);
  });
  return nullptr;
}

// Input x, output y.
template <class Gate> const char* run_gated(const char* op, const Call& c) {
  const View &x = c.in[0], &y = c.out[0];
  if (const char* error = check_halves(op, x, y)) return error;
  if (y.numel == 0) return nullptr;
  by_float(x.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (y.cols() % kVector<T> == 0 && is_aligned(x.data, 16) && is_aligned(y.data, 16))
      gated_forward<Gate, kVector<T>, T>(c.stream, x, y);
    else
      gated_forward<Gate, 1, T>(c.stream, x, y);
  });
  return nullptr;
}

}  // namespace
}  // namespace ds
