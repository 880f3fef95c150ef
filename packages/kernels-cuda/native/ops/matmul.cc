// y [batch.., M, N] = op(a) op(b); b may be one matrix for all of the batch.
#include "../gemm.h"
#include "../kernel.h"

namespace ds {

KERNEL(matmul, kFloats) {
  const View &a = c.in[0], &b = c.in[1], &y = c.out[0];
  Gemm g = {};
  g.transpose_a = c.attrs[0] != 0, g.transpose_b = c.attrs[1] != 0;
  const int64_t b_k = b.dims[b.rank - (g.transpose_b ? 1 : 2)];
  g.m = y.dims[y.rank - 2], g.n = y.dims[y.rank - 1], g.k = a.dims[a.rank - (g.transpose_a ? 2 : 1)];
  if (g.k != b_k) return error_text("matmul: rows of op(a) have %lld elements, columns of op(b) %lld", (long long)g.k, (long long)b_k);
  if (a.dtype != b.dtype) return error_text("matmul: b of a's dtype (code %d), got code %d", a.dtype, b.dtype);
  if (y.numel == 0) return nullptr;
  g.a = a.data, g.b = b.data, g.c = y.data;
  g.lda = a.dims[a.rank - 1], g.ldb = b.dims[b.rank - 1], g.ldc = g.n;
  g.in_dtype = DType(a.dtype), g.out_dtype = DType(y.dtype);
  g.batch = y.numel / (g.m * g.n);
  g.stride_a = g.m * g.k, g.stride_b = b.rank > 2 ? g.k * g.n : 0, g.stride_c = g.m * g.n;
  if (g.stride_b == 0 && !g.transpose_a) g.m *= g.batch, g.batch = 1;  // one tall matrix
  return gemm(g, c.stream);
}

}  // namespace ds
