// Embedding lookup and its gradient. table [V, C], ids i32 [...] of n tokens, y [..., C].
#include "../embedding_gradient.cuh"

namespace ds {
namespace {

// Rows are copied as units of 16 bytes where everything is aligned, else of one element; a warp copies kUnits * 32 of them.
constexpr int kUnits = 8;
template <class U>
__global__ void __launch_bounds__(256)
gather_rows(const U* table, const int32_t* ids, U* y, int64_t n, int64_t V, int64_t units, int64_t parts, Fault* fault) {
  const int lane = threadIdx.x % 32;
  for (int64_t task = int64_t(blockIdx.x) * 8 + threadIdx.x / 32; task < n * parts; task += int64_t(gridDim.x) * 8) {
    const int64_t row = task / parts, part = task % parts;
    const int32_t id = ids[row];
    const bool known = id >= 0 && id < V;
    if (!known && part == 0 && lane == 0) device_fault(fault, kFaultEmbeddingId, id, row, V);
    const U* from = table + (known ? int64_t(id) : 0) * units;
    U* to = y + row * units;
    const int64_t first = part * 32 * kUnits + lane;
    U unit[kUnits];
    if (!known) {
      memset(unit, 0xff, sizeof unit);  // a NaN in every float dtype
    } else {
#pragma unroll
      for (int u = 0; u < kUnits; u++)
        if (first + u * 32 < units) unit[u] = from[first + u * 32];
    }
#pragma unroll
    for (int u = 0; u < kUnits; u++)
      if (first + u * 32 < units) to[first + u * 32] = unit[u];
  }
}

template <class U> void gather(const View& table, const View& ids, const View& y, cudaStream_t stream) {
  const int64_t units = table.cols() * kElementBytes[table.dtype] / int64_t(sizeof(U));
  const int64_t parts = (units + 32 * kUnits - 1) / (32 * kUnits);
  gather_rows<U><<<grid_for(ids.numel * parts, 8, 32), 256, 0, stream>>>(table.as<U>(), ids.as<int32_t>(), y.as<U>(), ids.numel,
                                                                       table.rows(), units, parts, fault_slot());
}

}  // namespace

KERNEL(embedding, kFloats) {
  const View &table = c.in[0], &ids = c.in[1], &y = c.out[0];
  if (ids.dtype != I32) return error_text("embedding: ids must be i32, got dtype code %d", ids.dtype);
  if (y.dtype != table.dtype || y.numel != ids.numel * table.cols())
    return error_text("embedding: expected y of %lld elements in the table's dtype", (long long)(ids.numel * table.cols()));
  if (y.numel == 0) return nullptr;
  const int64_t bytes = table.cols() * kElementBytes[table.dtype];
  if (bytes % 16 == 0 && is_aligned(table.data, 16) && is_aligned(y.data, 16))
    gather<uint4>(table, ids, y, c.stream);
  else if (kElementBytes[table.dtype] == 4)
    gather<uint32_t>(table, ids, y, c.stream);
  else
    gather<uint16_t>(table, ids, y, c.stream);
  return nullptr;
}

// dtable[id] (+)= sum of dy over the tokens with that id, in token order, in f32 with one rounding; with accumulate = 1 only the rows
// that occur are touched.
KERNEL(embedding_backward, kFloats) {
  const View &dy = c.in[0], &ids = c.in[1], &dtable = c.out[0];
  const int64_t C = dtable.cols(), n = ids.numel;
  if (ids.dtype != I32) return error_text("embedding_backward: ids must be i32, got dtype code %d", ids.dtype);
  if (dy.numel != n * C)
    return error_text("embedding_backward: dy has %lld elements, expected %lld", (long long)dy.numel, (long long)(n * C));
  if (dtable.dtype != dy.dtype && dtable.dtype != F32)
    return error_text("embedding_backward: the gradient of the table must be f32 or of dy's dtype (code %d), got code %d", dy.dtype,
                      dtable.dtype);
  const bool accumulate = c.attrs[0] != 0;
  if (!accumulate) {
    const cudaError_t error = cudaMemsetAsync(dtable.data, 0, size_t(dtable.bytes()), c.stream);
    if (error != cudaSuccess) return cuda_error_text("embedding_backward: zeroing of the gradient", error);
  }
  if (n == 0 || C == 0) return nullptr;
  EmbeddingOrder order;
  if (const char* error = order_tokens(ids, dtable.rows(), C, c.stream, order)) return error;
  by_float(dy.dtype, [&](auto g) {
    using G = typename decltype(g)::type;
    if (dtable.dtype == F32)
      add_tokens<G, float>(dy, dtable, order, accumulate, c.stream);
    else
      add_tokens<G, G>(dy, dtable, order, accumulate, c.stream);
  });
  return nullptr;
}

}  // namespace ds
