// The feed-forward part's products with GPT-2's GELU (the tanh form). Forward it is cuBLASLt's epilogue. Backward that library's
// product with gelu' takes 1.5 times a plain one (302 us for 203, 32768x3072x768 on an H200), as much as the pass saves that makes the
// activation once more: gelu' goes with that pass. For 16-bit storage; in f32 core composes the forward.
#include "../gemm_parts.h"
#include "../kernel.h"

namespace ds {

namespace {

// A weight that maps rows of `inputs` to rows of `outputs`, stored [outputs, inputs] (layout 0) or [inputs, outputs] (layout 1).
const char* check_weight(const char* op, const View& w, int layout, int64_t inputs, int64_t outputs, int32_t dtype) {
  const int64_t rows = layout ? inputs : outputs, columns = layout ? outputs : inputs;
  if (w.rank == 2 && w.dims[0] == rows && w.dims[1] == columns && w.dtype == dtype) return nullptr;
  return error_text("%s: a weight [%lld, %lld] of dtype code %d, got [%lld, %lld] of code %d", op, (long long)rows, (long long)columns, dtype,
                    (long long)w.rows(), (long long)w.cols(), w.dtype);
}

}  // namespace

// x [rows, I], w, bias [O] -> a = gelu(h), h = x W' + b [rows, O].
KERNEL(linear_gelu, dtype_bit(BF16) | dtype_bit(F16)) {
  const View &x = c.in[0], &w = c.in[1], &bias = c.in[2], &a = c.out[0], &h = c.out[1];
  const int layout = int(c.attrs[0]);
  if (const char* error = check_weight("linear_gelu", w, layout, x.cols(), h.cols(), x.dtype)) return error;
  if (bias.numel != h.cols() || bias.dtype != x.dtype || a.numel != h.numel || a.dtype != x.dtype || h.dtype != x.dtype)
    return error_text("linear_gelu: a bias of %lld elements and outputs alike in the dtype of x (code %d), got %lld elements of code %d",
                      (long long)h.cols(), x.dtype, (long long)bias.numel, bias.dtype);
  Gemm g = {};
  g.m = h.rows(), g.n = h.cols(), g.k = x.cols();
  g.a = x.data, g.lda = g.k;
  g.b = w.data, g.transpose_b = layout == 0, g.ldb = layout == 0 ? g.k : g.n;
  g.c = a.data, g.ldc = g.n;
  g.aux = h.data, g.ld_aux = g.n;
  g.bias = bias.data;
  g.in_dtype = g.out_dtype = DType(x.dtype);
  g.epilogue = Epilogue::kGeluAuxBias;
  return gemm(g, c.stream);
}

// dy [rows, O], w (of the map after the activation), h [rows, I] -> dh = (dy W) gelu'(h), a = gelu(h), both [rows, I], and db [I] (+)=
// sums of dh's columns: a product and a pass.
KERNEL(linear_gelu_backward, kFloats) {
  const View &dy = c.in[0], &w = c.in[1], &h = c.in[2], &dh = c.out[0], &a = c.out[1], &db = c.out[2];
  const int layout = int(c.attrs[0]);
  const bool accumulate = c.attrs[1] != 0;
  const int64_t rows = h.rows(), columns = h.cols();
  if (const char* error = check_weight("linear_gelu_backward", w, layout, columns, dy.cols(), dy.dtype)) return error;
  if (dh.numel != h.numel || dh.dtype != dy.dtype || a.numel != h.numel || a.dtype != dy.dtype || h.dtype != dy.dtype || rows != dy.rows() ||
      db.numel != columns)
    return error_text("linear_gelu_backward: h, dh and a of %lld rows in the dtype of dy (code %d) and db of %lld elements, got h of %lld rows, "
                      "codes %d, %d and %d, and %lld elements",
                      (long long)dy.rows(), dy.dtype, (long long)columns, (long long)rows, h.dtype, dh.dtype, a.dtype, (long long)db.numel);
  void* partial = scratch(kScratchA, gelu_backward_sums_bytes(rows, columns, dy.dtype));
  if (!partial) return kNoWorkspace;
  Gemm g = {};
  g.m = rows, g.n = columns, g.k = dy.cols();
  g.a = dy.data, g.lda = g.k;
  g.b = w.data, g.transpose_b = layout == 1, g.ldb = layout == 1 ? g.k : g.n;
  g.c = dh.data, g.ldc = g.n;
  g.in_dtype = g.out_dtype = DType(dy.dtype);
  if (const char* error = gemm(g, c.stream)) return error;
  gelu_backward_sums(dh.data, h.data, dh.data, a.data, dy.dtype, rows, columns, db, accumulate, partial, c.stream);
  return nullptr;
}

}  // namespace ds
