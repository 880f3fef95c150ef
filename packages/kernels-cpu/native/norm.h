// What layer_norm and rms_norm share: f32 copies of the small vectors, and weight gradients, which are sums over rows.
#pragma once
#include "lanes.h"

namespace ds {
namespace DS_ISA_NS {

// The [columns] vector `w` plus `offset` as f32, in the call's shared scratch when that is not how it is stored. nullptr: out of memory.
static const float* widened(const View& w, int slot, float offset = 0) {
  if (w.dtype == F32 && offset == 0) return w.as<const float>();
  float* copy = static_cast<float*>(scratch(-1, slot, (size_t)w.numel * sizeof(float)));
  if (copy == nullptr) return nullptr;
  by_float(w.dtype, [&](auto t) {
    const auto* from = w.as<const decltype(t)>();
    for_vectors(0, w.numel, [&](int64_t i, auto n) { store(copy + i, load(from + i, n) + offset, n); });
  });
  return copy;
}

// Rows are cut into chunks by their number alone, never by threads: at most 64 chunks of at least 16 rows. Each
// chunk sums its rows in order into its own line of `partial` [chunks, columns]; chunks are then added in order.
struct RowChunks {
  int64_t size, count;
};
DS_INLINE RowChunks row_chunks(int64_t rows) {
  int64_t size = (rows + 63) / 64;
  if (size < 16) size = 16;
  return {size, (rows + size - 1) / size};
}

// dw[j] = (accumulate ? dw[j] : 0) + sum over chunks of partial[chunk * stride + j]
static void add_chunks(const View& dw, const float* partial, int64_t stride, int64_t chunks, bool accumulate) {
  by_float(dw.dtype, [&](auto t) {
    using T = decltype(t);
    T* out = dw.as<T>();
    parallel(dw.numel, 1024, [&](int64_t begin, int64_t end, int) {
      for_vectors(begin, end, [&](int64_t i, auto n) {
        vf sum{};
        for (int64_t chunk = 0; chunk < chunks; chunk++) sum += load(partial + chunk * stride + i, n);
        store(out + i, accumulate ? load(out + i, n) + sum : sum, n);
      });
    });
  });
}

}  // namespace DS_ISA_NS
}  // namespace ds
