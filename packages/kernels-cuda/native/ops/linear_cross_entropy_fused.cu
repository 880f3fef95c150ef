// The head's loss and both gradients in one pass over chunks of logits: two products and one read of the logits less than forward
// and backward apart. The gradients are those of the sum of the rows' losses; the backward op divides by the rows that count.
#include "../head_products.cuh"

namespace ds {
namespace {

template <class L, class T, int kThreads>
const char* loss_and_gradient(const Head& h, const Chunk& chunk, int64_t first, int64_t m, float* losses, cudaStream_t stream) {
  const auto kernel = head_loss_and_gradient<L, T, kThreads>;
  // All of a row where two fit a multiprocessor, else as much as one block may have; 1 KiB a block is the system's.
  const int64_t packs = (h.v + kVector<L> - 1) / kVector<L>, room = int64_t(device_properties().shared_memory) - 1024;
  const int64_t held = smaller(packs, (packs * 16 + 1024 <= room / 2 ? room / 2 : room) / 16);
  // Each time: the attribute belongs to the device, and setting it is cheap beside the products.
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(held * 16));
  if (error != cudaSuccess) return cuda_error_text("linear_cross_entropy_fused: shared memory for a row of logits", error);
  kernel<<<unsigned(m), kThreads, size_t(held) * 16, stream>>>(static_cast<L*>(chunk.logits), static_cast<T*>(chunk.gradient), h.stride,
                                                                int(h.v), first, h.labels, losses, int(held), h.uncap());
  return nullptr;
}

}  // namespace

// x, w, labels -> loss f32 [], valid f32 [], dx like x, dw f32 [V, C].
KERNEL(linear_cross_entropy_fused, kFloats) {
  Head h;
  if (const char* error = read_head(c, 0, c.attrs[0], c.attrs[1], "linear_cross_entropy_fused", h)) return error;
  const View &dx = c.out[2], &dw = c.out[3];
  if (dx.dtype != h.dtype || dw.dtype != F32)
    return error_text("linear_cross_entropy_fused: dx must have x's dtype (code %d) and dw f32, got codes %d and %d", h.dtype, dx.dtype,
                      dw.dtype);
  Chunk chunk;
  float* losses = static_cast<float*>(scratch(kScratchB, size_t(h.n + 1) * sizeof(float)));
  if (!chunk_room(h, true, chunk) || !losses) return kNoWorkspace;
  if (h.n == 0) cudaMemsetAsync(dw.data, 0, size_t(dw.bytes()), c.stream);
  for (int64_t i = 0; i < h.n; i += h.chunk_rows) {
    const int64_t m = smaller(h.chunk_rows, h.n - i);
    const char* error = make_logits(h, i, m, chunk.logits, c.stream);
    if (error) return error;
    by_logits(h, [&](auto l, auto t) {
      using L = typename decltype(l)::type;
      using T = typename decltype(t)::type;
      const bool wide = h.v * int64_t(sizeof(L)) > kWideRow;
      error = wide ? loss_and_gradient<L, T, kWideThreads>(h, chunk, i, m, losses, c.stream)
                   : loss_and_gradient<L, T, kHeadThreads>(h, chunk, i, m, losses, c.stream);
    });
    if (!error) error = make_dx(h, i, m, chunk.gradient, dx, c.stream);
    if (!error) error = add_dw(h, i, m, chunk.gradient, dw.data, F32, i > 0, c.stream);
    if (error) return error;
  }
  mean_loss<<<1, 1024, 0, c.stream>>>(losses, h.labels, h.n, c.out[0].as<float>(), c.out[1].as<float>());
  return nullptr;
}

// dloss f32 [], valid f32 [], dx, dw f32 -> dx * dloss / valid, and dw * dloss / valid (added to when accumulate).
KERNEL(linear_cross_entropy_fused_backward, kFloats) {
  const View &dx = c.in[2], &dw = c.in[3], &to_dx = c.out[0], &to_dw = c.out[1];
  if (to_dx.numel != dx.numel || to_dx.dtype != dx.dtype || to_dw.numel != dw.numel || dw.dtype != F32)
    return error_text("linear_cross_entropy_fused_backward: outputs must be like dx and dw, and dw f32 (code 0, got %d)", dw.dtype);
  const bool accumulate = c.attrs[0] != 0;
  const float *dloss = c.in[0].as<float>(), *valid = c.in[1].as<float>();
  by_float(dx.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (dx.numel > 0) add_gradients(dx.as<T>(), to_dx.as<T>(), dx.numel, false, dloss, valid, c.stream);
  });
  by_float(to_dw.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    if (dw.numel > 0) add_gradients(dw.as<float>(), to_dw.as<T>(), dw.numel, accumulate, dloss, valid, c.stream);
  });
  return nullptr;
}

}  // namespace ds
