// What the forward and the backward of attention share: the shapes, the copies of a head in the order the products read
// them, and one block of scores. Scores are kept in units of log2 e (q is scaled by scale * log2 e when it is copied), so
// that the softmax is a plain 2^x.
#pragma once
#include "bend.h"
#include "gemm.h"
#include "philox.h"

namespace ds {
namespace DS_ISA_NS {

constexpr int64_t kKeys = 256;             // keys of a score block
constexpr int64_t kScoreRow = kKeys + 16;  // floats between its rows: an odd number of cache lines

struct Attention : Bend {
  int64_t batch, length, heads, kv_heads, d;
  int64_t window;  // keys that a query sees, back from its own position, itself included; 0: all
  double scale, dropout;
  bool causal;
  PhiloxKey key;
  const int32_t* positions;  // [batch, length], of each token in its document; null: a row is one document
  int64_t group() const { return heads / kv_heads; }
  int64_t token() const { return (heads + 2 * kv_heads) * d; }  // elements of one token of qkv: q heads, k heads, v heads
  // Floats between the rows of a head's copy: an odd number of cache lines, with d columns and room to read NR at a time.
  int64_t row() const { return (((d + 15) / 16) | 1) * 16; }
  int64_t slivers() const { return (length + NR - 1) / NR; }
  int64_t rows_size() const { return length * row() + NR; }
  int64_t columns_size() const { return slivers() * d * NR; }
};

// Positions start at 0 in each row and grow by at most one from token to token: where documents start never moves back.
static const char* read_positions(const char* op, const View& positions, Attention& s) {
  if (positions.dtype != I32 || positions.numel != s.batch * s.length || !s.causal)
    return error_text("%s: positions must be i32[%lld, %lld] and go with a causal mask", op, (long long)s.batch, (long long)s.length);
  s.positions = positions.as<const int32_t>();
  for (int64_t row = 0; row < s.batch; row++)
    for (int64_t i = 0, most = 0; i < s.length; i++) {
      const int64_t position = s.positions[row * s.length + i];
      if (position < 0 || position > most)
        return error_text("%s: position %lld of token %lld in row %lld, expected 0 to %lld: positions count from 0 in each document", op,
                          (long long)position, (long long)i, (long long)row, (long long)most);
      most = position + 1;
    }
  return nullptr;
}

// `positions`: the index of that optional input.
static const char* read_attention(const char* op, const Call& c, const View& qkv, int positions, Attention& s) {
  s.batch = qkv.dims[0], s.length = qkv.dims[1];
  s.heads = (int64_t)c.attrs[0], s.kv_heads = (int64_t)c.attrs[1], s.d = (int64_t)c.attrs[2];
  s.scale = c.attrs[3], s.causal = c.attrs[4] != 0, s.dropout = c.attrs[5];
  s.key = {(uint32_t)c.attrs[6], (uint32_t)c.attrs[7], (uint32_t)c.attrs[8], (uint32_t)c.attrs[9]};
  s.window = c.n_attrs > 10 && c.attrs[10] < (double)s.length ? (int64_t)c.attrs[10] : 0;
  s.softcap = c.n_attrs > 11 ? c.attrs[11] : 0, s.alibi = c.n_attrs > 12 && c.attrs[12] > 0;
  if (s.kv_heads > 0 && s.heads % s.kv_heads == 0 && s.token() == qkv.dims[2])
    return c.n_in > positions ? read_positions(op, c.in[positions], s) : nullptr;
  return error_text("%s: %lld query and %lld key/value heads of %lld do not make up rows of %lld", op, (long long)s.heads,
                    (long long)s.kv_heads, (long long)s.d, (long long)qkv.dims[2]);
}

// A head's rows are short runs a token apart, which no hardware prefetcher follows.
template <class T> DS_INLINE void fetch_ahead(const T* row, int64_t d) {
  for (int64_t k = 0; k < d; k += 64 / (int64_t)sizeof(T)) __builtin_prefetch(row + k);
}

// Rows of a head times `scale`, to f32. [rows][row()]
template <class T>
static void copy_rows(const T* from, int64_t ld, int64_t rows, int64_t d, float scale, float* to, int64_t row) {
  for (int64_t i = 0; i < rows; i++, from += ld, to += row) {
    fetch_ahead(from + 12 * ld, d);
    int64_t k = 0;
    for (; k + VL <= d; k += VL) store(to + k, load(from + k) * scale);
    if (k < d) store(to + k, load(from + k, d - k) * scale, d - k);
  }
}

// f32 rows times `scale` back into a tensor.
template <class T>
static void store_rows(const float* from, int64_t row, int64_t rows, int64_t d, float scale, T* to, int64_t ld) {
  for (int64_t i = 0; i < rows; i++, from += row, to += ld) {
    int64_t k = 0;
    for (; k + VL <= d; k += VL) store(to + k, load(from + k) * scale);
    if (k < d) store(to + k, load(from + k, d - k) * scale, d - k);
  }
}

// The transpose of tokens [s * NR, ..) of a head as sliver s. [slivers][d][NR]
template <class T>
static void copy_columns(const Attention& a, const T* from, int64_t ld, int64_t begin, int64_t end, float* to) {
  for (int64_t s = begin; s < end; s++) {
    const int n = (int)smaller(NR, a.length - s * NR);
    for (int64_t i = 0; s + 1 < end && i < NR; i++) fetch_ahead(from + ((s + 1) * NR + i) * ld, a.d);
    if (n < NR) clear_columns(to + s * a.d * NR, a.d, n);
    pack_sliver_transposed(from + s * NR * ld, ld, a.d, n, to + s * a.d * NR, 0);
  }
}

// out [rows i0 .. i0 + m) x [keys j0 .. j0 + n) = x rows . columns, where x starts at row i0. Under the causal mask only what
// some row sees is made: sliver by sliver, from the first row at or below its first key.
static void scores(const Attention& a, const float* x, int64_t i0, int64_t m, const float* columns, int64_t j0, int64_t n, float* out) {
  for (int64_t j = 0; j < n; j += NR) {
    const int64_t from = a.causal ? smaller(m, larger(0, j0 + j - i0)) : 0;
    if (from == m) return;
    multiply_block({m - from, smaller(NR, n - j), a.d, x + from * a.row(), a.row(), Lie::kRows,
                    columns + (j0 + j) / NR * a.d * NR, NR, 0, out + from * kScoreRow + j, kScoreRow, Base::kZero, nullptr});
  }
}

// out [m x d] += p [m x n] y, p as the score block of rows i0 and keys j0, y the rows of the keys. Panel by panel under the
// causal mask, over the keys that a panel sees; the caller has zeroed what a panel's upper rows do not.
static void weigh(const Attention& a, const float* p, int64_t i0, int64_t m, const float* y, int64_t j0, int64_t n, float* out, Base base) {
  const int64_t panels = a.causal ? panel_count(m) : 1;
  for (int64_t panel = 0; panel < panels; panel++) {
    const int64_t i = panel_begin(m, panels, panel), height = panel_begin(m, panels, panel + 1) - i;
    const int64_t seen = a.causal ? smaller(n, larger(0, i0 + i + height - j0)) : n;
    if (seen == 0) continue;
    multiply_block({height, a.d, seen, p + i * kScoreRow, kScoreRow, Lie::kRows, y, a.row(), NR, out + i * a.row(), a.row(), base, nullptr});
  }
}

// out [n x d] += p' x, p as the score block of rows i0 and keys j0, x the block's m rows. Panels of keys that only later
// rows see start at the first such row.
static void weigh_transposed(const Attention& a, const float* p, int64_t i0, int64_t m, const float* x, int64_t j0, int64_t n, float* out) {
  const bool cut = a.causal && j0 + n - 1 > i0;
  const int64_t panels = cut ? panel_count(n) : 1;
  for (int64_t panel = 0; panel < panels; panel++) {
    const int64_t j = panel_begin(n, panels, panel), height = panel_begin(n, panels, panel + 1) - j;
    const int64_t from = cut ? larger(0, j0 + j - i0) : 0;
    if (from >= m) return;
    multiply_block({height, a.d, m - from, p + from * kScoreRow + j, kScoreRow, Lie::kColumns, x + from * a.row(), a.row(), NR,
                    out + j * a.row(), a.row(), Base::kC, nullptr});
  }
}

// How many of n keys from j0 row i sees. Its weights are zeroed up to MR beyond: what the last row of its panel sees.
DS_INLINE int64_t seen_keys(const Attention& a, int64_t i, int64_t j0, int64_t n) {
  return a.causal ? smaller(n, larger(0, i + 1 - j0)) : n;
}

// The first key that row i of sequence b sees.
DS_INLINE int64_t first_key(const Attention& a, int64_t b, int64_t i) {
  const int64_t document = a.positions ? i - a.positions[b * a.length + i] : 0;
  return a.window > 0 ? larger(document, i + 1 - a.window) : document;
}

// How many of the first `seen` keys from j0 lie before row i's document or window.
DS_INLINE int64_t hidden_keys(const Attention& a, int64_t b, int64_t i, int64_t j0, int64_t seen) {
  return smaller(seen, larger(0, first_key(a, b, i) - j0));
}

// The first block of keys that some row from i0 on sees.
DS_INLINE int64_t first_block(const Attention& a, int64_t b, int64_t i0) { return first_key(a, b, i0) / kKeys * kKeys; }

}  // namespace DS_ISA_NS
}  // namespace ds
