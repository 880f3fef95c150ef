// Embedding lookup and its gradient. table [V, C], ids i32 [...], y [..., C].
#include "../lanes.h"

namespace ds {
namespace DS_ISA_NS {

static const char* check_ids(const char* op, const View& ids, const View& table) {
  if (ids.dtype != I32) return error_text("%s: ids must be i32, got dtype code %d", op, ids.dtype);
  const int64_t V = table.rows();
  const int32_t* id = ids.as<const int32_t>();
  for (int64_t i = 0; i < ids.numel; i++)
    if (id[i] < 0 || id[i] >= V)
      return error_text("%s: id %d at position %lld is outside the table: expected 0 <= id < %lld", op, id[i],
                        (long long)i, (long long)V);
  return nullptr;
}

static int64_t element_bytes(int32_t dtype) { return dtype == F32 ? 4 : 2; }

KERNEL(embedding, kFloats) {
  const View &table = c.in[0], &ids = c.in[1], &y = c.out[0];
  if (y.dtype != table.dtype || y.numel != ids.numel * table.cols())
    return error_text("embedding: expected y of %lld elements in the table's dtype", (long long)(ids.numel * table.cols()));
  if (const char* error = check_ids("embedding", ids, table)) return error;
  const int64_t bytes = table.cols() * element_bytes(table.dtype);
  const int32_t* id = ids.as<const int32_t>();
  parallel(ids.numel, 1 + 65536 / (bytes + 1), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) memcpy(y.as<char>() + i * bytes, table.as<char>() + id[i] * bytes, (size_t)bytes);
  });
  return nullptr;
}

// Sorts keys (id << 32 | position) by id, equal ids staying in token order: least significant digit first, 11 bits a
// pass, as many passes as V needs. Returns whichever of the two buffers holds the result.
static uint64_t* sort_by_id(uint64_t* keys, uint64_t* other, int64_t n, int64_t V) {
  for (int shift = 0; (V - 1) >> shift > 0; shift += 11) {
    int64_t start[2049] = {};
    for (int64_t i = 0; i < n; i++) start[(keys[i] >> (32 + shift) & 2047) + 1]++;
    for (int digit = 0; digit < 2048; digit++) start[digit + 1] += start[digit];
    for (int64_t i = 0; i < n; i++) other[start[keys[i] >> (32 + shift) & 2047]++] = keys[i];
    uint64_t* sorted = other;
    other = keys;
    keys = sorted;
  }
  return keys;
}

constexpr int64_t kColumns = 512;  // columns a task sums in registers' reach: 2 KB of f32

// dtable[id] (+)= sum of dy over the tokens with that id, in token order, in f32 with one rounding. Tasks are (block of
// columns, group of distinct ids), so a text in which one id dominates still uses all threads; with accumulate = 1 only
// the rows that occur are touched.
KERNEL(embedding_backward, kFloats) {
  const View &dy = c.in[0], &ids = c.in[1], &dtable = c.out[0];
  const int64_t C = dtable.cols(), n = ids.numel;
  if (dy.numel != n * C)
    return error_text("embedding_backward: dy has %lld elements, expected %lld", (long long)dy.numel, (long long)(n * C));
  if (const char* error = check_ids("embedding_backward", ids, dtable)) return error;
  const bool accumulate = c.attrs[0] != 0;
  if (!accumulate) {
    const int64_t bytes = dtable.numel * element_bytes(dtable.dtype);
    parallel(bytes, 1 << 18, [&](int64_t begin, int64_t end, int) {
      memset(dtable.as<char>() + begin, 0, (size_t)(end - begin));
    });
  }
  if (n == 0 || C == 0) return nullptr;
  uint64_t* keys = static_cast<uint64_t*>(scratch(-1, 0, (size_t)n * sizeof(uint64_t)));
  uint64_t* other = static_cast<uint64_t*>(scratch(-1, 1, (size_t)n * sizeof(uint64_t)));
  int64_t* first = static_cast<int64_t*>(scratch(-1, 2, (size_t)(n + 1) * sizeof(int64_t)));
  if (keys == nullptr || other == nullptr || first == nullptr) return kNoWorkspace;
  const int32_t* id = ids.as<const int32_t>();
  for (int64_t i = 0; i < n; i++) keys[i] = (uint64_t)id[i] << 32 | (uint64_t)i;
  keys = sort_by_id(keys, other, n, dtable.rows());
  int64_t groups = 0;  // group g is the run keys[first[g] .. first[g + 1])
  for (int64_t i = 0; i < n; i++)
    if (i == 0 || keys[i] >> 32 != keys[i - 1] >> 32) first[groups++] = i;
  first[groups] = n;
  const int64_t blocks = (C + kColumns - 1) / kColumns;
  by_float(dy.dtype, [&](auto tg) {
    by_float(dtable.dtype, [&](auto tt) {
      using G = decltype(tg);
      using T = decltype(tt);
      parallel(groups * blocks, 8, [&](int64_t begin, int64_t end, int) {
        for (int64_t task = begin; task < end; task++) {
          const int64_t group = task / blocks, from = task % blocks * kColumns;
          const int64_t columns = C - from < kColumns ? C - from : kColumns;
          T* out = dtable.as<T>() + (int64_t)(keys[first[group]] >> 32) * C + from;
          float sum[kColumns];
          for_vectors(0, columns, [&](int64_t i, auto lanes) { store(sum + i, load(out + i, lanes), lanes); });
          for (int64_t k = first[group]; k < first[group + 1]; k++) {
            const G* grad = dy.as<const G>() + (int64_t)(keys[k] & 0xffffffffu) * C + from;
            for_vectors(0, columns, [&](int64_t i, auto lanes) {
              store(sum + i, load(sum + i, lanes) + load(grad + i, lanes), lanes);
            });
          }
          for_vectors(0, columns, [&](int64_t i, auto lanes) { store(out + i, load(sum + i, lanes), lanes); });
        }
      });
    });
  });
  return nullptr;
}

}  // namespace DS_ISA_NS
}  // namespace ds
