// C_i [m_i, n] = the rows of A B' one after another: a linear map in 8 bits and its gradients. Outputs that lie together are one product.
#include "../gemm_fp8.h"

namespace ds {

// in: a [m, k], b [n, k] (codes), their 1 / scale, a bias [n] if there is a fifth; out: pieces of [m, n].
// attrs: a and b in e5m2, fast sums, accumulate.
KERNEL(fp8_matmul, dtype_bit(BF16) | dtype_bit(F32)) {
  if (c.n_in < 4 || c.n_in > 5) return error_text("fp8_matmul: two operands, two scales and at most a bias, got %d inputs", c.n_in);
  const View &a = c.in[0], &b = c.in[1];
  Fp8Gemm g = {};
  g.n = b.rows(), g.k = a.cols();
  g.b = b.data, g.scale_a = c.in[2].as<const float>(), g.scale_b = c.in[3].as<const float>();
  g.a_e5m2 = c.attrs[0] != 0, g.b_e5m2 = c.attrs[1] != 0, g.fast = c.attrs[2] != 0, g.beta = c.attrs[3] != 0 ? 1.0f : 0.0f;
  if (b.cols() != g.k) return error_text("fp8_matmul: sums over %lld and %lld", (long long)g.k, (long long)b.cols());
  if (c.n_in == 5) {
    if (c.in[4].numel != g.n || c.in[4].dtype != BF16) return "fp8_matmul: a bf16 bias as long as the output's rows";
    g.bias = c.in[4].data;
  }
  int64_t elements = 0;
  for (int i = 0; i < c.n_out; i++) {
    const View& out = c.out[i];
    if (g.n > 0 && out.numel % g.n != 0) return error_text("fp8_matmul: output %d in rows of %lld", i, (long long)g.n);
    elements += out.numel;
  }
  if (elements != a.rows() * g.n) return error_text("fp8_matmul: outputs of %lld elements, got %lld", (long long)(a.rows() * g.n), (long long)elements);
  if (g.n == 0) return nullptr;
  int64_t row = 0;
  for (int i = 0; i < c.n_out;) {
    const View& first = c.out[i];
    int64_t bytes = 0, count = 0;
    for (; i < c.n_out && c.out[i].dtype == first.dtype && c.out[i].as<char>() == first.as<char>() + bytes; i++)
      bytes += c.out[i].bytes(), count += c.out[i].numel;
    g.m = count / g.n, g.c = first.data, g.out_dtype = DType(first.dtype);
    g.a = a.as<const char>() + row * g.k;
    if (const char* error = gemm_fp8(g, c.stream)) return error;
    row += g.m;
  }
  return nullptr;
}

}  // namespace ds
