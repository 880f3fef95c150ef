// Matrices one under the other, cast to one of the 8-bit formats: as they are, transposed, or both.
#include "../fp8.cuh"

namespace ds {
namespace {

struct Place {
  uint8_t* rows;
  uint8_t* columns;
  int64_t ld_columns;
  float *inverse, *state;
};

template <class T, bool kE5M2>
void cast_piece(const void* x, int64_t rows, int64_t cols, int64_t first, bool last, const Place& place, bool measure, cudaStream_t stream) {
  using Source = fp8::Formatted<fp8::Plain<T>, kE5M2 ? 1u : 0u>;
  Source source;
  source.x = static_cast<const T*>(x);
  fp8::Outputs<1> out = {};
  if (place.rows) out.of[0].rows = place.rows + first * cols;
  if (place.columns) out.of[0].columns = place.columns + first;
  out.of[0].ld_rows = cols, out.of[0].ld_columns = place.ld_columns;
  out.of[0].state = place.state, out.of[0].inverse = place.inverse;
  const int64_t rows_out = place.columns && last ? place.ld_columns - first : rows;
  fp8::cast(source, out, rows, cols, rows_out, is_aligned(x, 16), measure, stream);
}

bool adjacent(const View* v, int n) {
  for (int i = 0; i + 1 < n; i++)
    if (v[i].as<char>() + v[i].bytes() != v[i + 1].as<char>()) return false;
  return true;
}

}  // namespace

// in: n matrices [R_i, C]; out: codes [R, C] and [C, R padded to 16] (as `rows` and `columns` say), 1 / scale [1], state.
KERNEL(fp8_cast, dtype_bit(BF16) | dtype_bit(F32)) {
  const bool e5m2 = c.attrs[0] != 0, wants_rows = c.attrs[1] != 0, wants_columns = c.attrs[2] != 0, calibrate = c.attrs[3] != 0;
  const int margin = int(c.attrs[4]);
  const int64_t cols = c.in[0].cols();
  int64_t total = 0;
  for (int i = 0; i < c.n_in; i++) {
    if (c.in[i].cols() != cols || c.in[i].dtype != BF16)
      return error_text("fp8_cast: bf16 matrices of %lld columns, got %lld of dtype code %d", (long long)cols, (long long)c.in[i].cols(), c.in[i].dtype);
    total += c.in[i].rows();
  }
  if (c.n_out != 2 + int(wants_rows) + int(wants_columns)) return error_text("fp8_cast: got %d outputs", c.n_out);
  const View *to_rows = wants_rows ? c.out : nullptr, *to_columns = wants_columns ? c.out + int(wants_rows) : nullptr;
  if (to_rows && to_rows->numel != total * cols) return error_text("fp8_cast: codes of %lld x %lld", (long long)total, (long long)cols);
  if (to_columns && (to_columns->cols() != fp8::padded(total) || to_columns->rows() != cols))
    return error_text("fp8_cast: transposed codes of %lld x %lld", (long long)cols, (long long)fp8::padded(total));
  Place place;
  place.rows = to_rows ? to_rows->as<uint8_t>() : nullptr;
  place.columns = to_columns ? to_columns->as<uint8_t>() : nullptr;
  place.ld_columns = fp8::padded(total);
  place.inverse = c.out[c.n_out - 2].as<float>(), place.state = c.out[c.n_out - 1].as<float>();
  const auto pass = [&](bool measure) {
    int64_t first = 0;
    const bool one = adjacent(c.in, c.n_in);
    for (int i = 0; i < (one ? 1 : c.n_in); i++) {
      const int64_t rows = one ? total : c.in[i].rows();
      const bool last = one || i == c.n_in - 1;
      if (e5m2)
        cast_piece<bf16, true>(c.in[i].data, rows, cols, first, last, place, measure, c.stream);
      else
        cast_piece<bf16, false>(c.in[i].data, rows, cols, first, last, place, measure, c.stream);
      first += rows;
    }
  };
  if (calibrate) {
    pass(true);
    fp8::set_scale(place.state, e5m2, margin, c.stream);
  }
  pass(false);
  return nullptr;
}

}  // namespace ds
