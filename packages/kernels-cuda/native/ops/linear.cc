// y [rows, S] = x [rows, I] [W_0 .. W_{n-1}] + [b_0 .. b_{n-1}], S = sum of O_i, and its gradients: several weights (query, key,
// value; gate, up) as one product. layout 0 stores W as [O, I] (torch's Linear), layout 1 as [I, O] (GPT-2's Conv1D).
//
// A GPU likes one wide product better than several narrow ones. Weights of layout 0 that lie one after another in memory, as they do
// in ZeRO's flat buffer, are one matrix [S, I] as they are; others are copied together where that is cheap beside the product.
#include "../gemm.h"
#include "../kernel.h"

namespace ds {

namespace {

// Fewer rows than this leave a product to the weights' own traffic, which a copy would triple.
constexpr int64_t kRowsToPack = 256;

char* offset_of(const void* base, int64_t elements, int32_t dtype) {
  return const_cast<char*>(static_cast<const char*>(base)) + elements * kElementBytes[dtype];
}

struct Weights {
  const View* w;
  int n, layout;
  int64_t inputs() const { return w[0].dims[layout ? 0 : 1]; }
  int64_t outputs(int i) const { return w[i].dims[layout ? 1 : 0]; }
  int64_t total() const {
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += outputs(i);
    return sum;
  }
};

// Whether views of one dtype follow each other without a gap.
bool are_adjacent(const View* v, int n) {
  for (int i = 0; i + 1 < n; i++)
    if (v[i].dtype != v[i + 1].dtype || v[i].as<char>() + v[i].bytes() != v[i + 1].as<char>()) return false;
  return true;
}

// Weights must take rows of `inputs` and together give rows of `outputs`, or no more than those where `some` will do.
const char* check_weights(const char* op, const Weights& weights, int32_t dtype, int64_t inputs, int64_t outputs, bool some = false) {
  for (int i = 0; i < weights.n; i++) {
    const View& w = weights.w[i];
    const int64_t in = w.dims[weights.layout ? 0 : 1];
    if (in != inputs) return error_text("%s: weight %d takes rows of %lld, got %lld", op, i, (long long)in, (long long)inputs);
    if (w.dtype != dtype) return error_text("%s: weight %d of the other side's dtype (code %d), got code %d", op, i, dtype, w.dtype);
  }
  const int64_t sum = weights.total();
  if (sum == outputs || (some && sum < outputs)) return nullptr;
  return error_text("%s: the weights give rows of %lld, the other side has %lld", op, (long long)sum, (long long)outputs);
}

// All weights as one matrix, [S, I] (layout 0) or [I, S] (layout 1): where they lie if that will do, else copied to scratch.
// nullptr: no workspace.
const void* together(const Weights& weights, cudaStream_t stream) {
  if (weights.n == 1 || (weights.layout == 0 && are_adjacent(weights.w, weights.n))) return weights.w[0].data;
  const int64_t each = kElementBytes[weights.w[0].dtype], inputs = weights.inputs(), total = weights.total();
  char* packed = static_cast<char*>(scratch(kScratchA, size_t(inputs * total * each)));
  if (!packed) return nullptr;
  char* to = packed;
  for (int i = 0; i < weights.n; i++) {
    const View& w = weights.w[i];
    const size_t width = size_t(weights.outputs(i) * each);
    if (w.numel == 0) continue;
    if (weights.layout == 0) {
      cudaMemcpyAsync(to, w.data, size_t(w.bytes()), cudaMemcpyDeviceToDevice, stream);
      to += w.bytes();
    } else {
      cudaMemcpy2DAsync(to, size_t(total * each), w.data, width, width, size_t(inputs), cudaMemcpyDeviceToDevice, stream);
      to += width;
    }
  }
  return packed;
}

// The biases as one vector, likewise.
const void* biases_together(const View* biases, int n, cudaStream_t stream) {
  if (are_adjacent(biases, n)) return biases[0].data;
  int64_t bytes = 0;
  for (int i = 0; i < n; i++) bytes += biases[i].bytes();
  char* packed = static_cast<char*>(scratch(kScratchB, size_t(bytes)));
  if (!packed) return nullptr;
  char* to = packed;
  for (int i = 0; i < n; to += biases[i].bytes(), i++)
    cudaMemcpyAsync(to, biases[i].data, size_t(biases[i].bytes()), cudaMemcpyDeviceToDevice, stream);
  return packed;
}

// y's columns from `column` on by one matrix of weights.
const char* forward(const Call& c, int layout, const void* w, int64_t outputs, const void* bias, int64_t column) {
  const View &x = c.in[0], &y = c.out[0];
  Gemm g = {};
  g.m = y.rows(), g.n = outputs, g.k = x.cols();
  g.a = x.data, g.lda = g.k;
  g.b = w, g.transpose_b = layout == 0, g.ldb = layout == 0 ? g.k : outputs;
  g.c = offset_of(y.data, column, y.dtype), g.ldc = y.cols();
  g.in_dtype = DType(x.dtype), g.out_dtype = DType(y.dtype);
  if (bias) g.epilogue = Epilogue::kBias, g.bias = bias;
  return gemm(g, c.stream);
}

const char* forward(const Call& c, const Weights& weights, const View* biases) {
  const bool one = weights.n == 1 || (weights.layout == 0 && are_adjacent(weights.w, weights.n));
  if (one || c.in[0].rows() >= kRowsToPack) {
    const void* w = together(weights, c.stream);
    const void* bias = biases ? biases_together(biases, weights.n, c.stream) : nullptr;
    if (!w || (biases && !bias)) return kNoWorkspace;
    return forward(c, weights.layout, w, weights.total(), bias, 0);
  }
  int64_t column = 0;
  for (int i = 0; i < weights.n; column += weights.outputs(i), i++)
    if (const char* error = forward(c, weights.layout, weights.w[i].data, weights.outputs(i), biases ? biases[i].data : nullptr, column))
      return error;
  return nullptr;
}

// One dw, or several that lie together in layout 0, from dy's columns [column, column + columns).
const char* weight_gradient(const Call& c, int64_t column, int64_t columns, const View& dw, int layout, bool accumulate) {
  const View &dy = c.in[0], &x = c.in[1];
  const void* slice = offset_of(dy.data, column, dy.dtype);
  Gemm g = {};
  g.k = x.rows();
  g.transpose_a = true;
  if (layout == 0) {
    g.m = columns, g.n = x.cols();
    g.a = slice, g.lda = dy.cols(), g.b = x.data, g.ldb = x.cols();
  } else {
    g.m = x.cols(), g.n = columns;
    g.a = x.data, g.lda = x.cols(), g.b = slice, g.ldb = dy.cols();
  }
  g.c = dw.data, g.ldc = g.n;
  g.in_dtype = DType(x.dtype), g.out_dtype = DType(dw.dtype);
  g.beta = accumulate ? 1 : 0;
  return gemm(g, c.stream);
}

}  // namespace

KERNEL(linear, kFloats) {
  const int n = int(c.attrs[0]);
  const bool has_bias = c.attrs[1] != 0;
  if (n < 1 || c.n_in != 1 + n * (has_bias ? 2 : 1))
    return error_text("linear: x and %d weights%s, got %d inputs", n, has_bias ? " with a bias each" : "", c.n_in);
  const Weights weights = {c.in + 1, n, int(c.attrs[2])};
  if (const char* error = check_weights("linear", weights, c.in[0].dtype, c.in[0].cols(), c.out[0].cols())) return error;
  for (int i = 0; has_bias && i < n; i++) {
    const View& bias = c.in[1 + n + i];
    if (bias.numel != weights.outputs(i) || bias.dtype != c.in[0].dtype)
      return error_text("linear: bias %d of %lld elements in the dtype of x, got %lld of dtype code %d", i, (long long)weights.outputs(i),
                        (long long)bias.numel, bias.dtype);
  }
  return forward(c, weights, has_bias ? c.in + 1 + n : nullptr);
}

// dx [rows, I] = sum_i dy_i W_i: one product over the concatenated S, so one accumulation in f32. The dy_i are dy's columns one
// after another from columnOffset on.
KERNEL(linear_dx, kFloats) {
  const View &dy = c.in[0], &dx = c.out[0];
  const Weights weights = {c.in + 1, int(c.attrs[0]), int(c.attrs[1])};
  const int64_t offset = int64_t(c.attrs[2]);
  if (const char* error = check_weights("linear_dx", weights, dy.dtype, dx.cols(), dy.cols() - offset, true)) return error;
  const void* w = together(weights, c.stream);
  if (!w) return kNoWorkspace;
  Gemm g = {};
  g.m = dx.rows(), g.n = dx.cols(), g.k = weights.total();
  g.a = offset_of(dy.data, offset, dy.dtype), g.lda = dy.cols();
  g.b = w, g.transpose_b = weights.layout == 1, g.ldb = weights.layout == 1 ? g.k : g.n;
  g.c = dx.data, g.ldc = g.n;
  g.in_dtype = DType(dy.dtype), g.out_dtype = DType(dx.dtype);
  return gemm(g, c.stream);
}

// y [rows, S] += x W' on W's columns of y, from columnOffset on: W [O, K].
KERNEL(linear_add, kFloats) {
  const View &x = c.in[0], &y = c.out[0];
  const Weights weights = {c.in + 1, 1, 0};
  const int64_t offset = int64_t(c.attrs[0]);
  if (x.rows() != y.rows()) return error_text("linear_add: x has %lld rows, y %lld", (long long)x.rows(), (long long)y.rows());
  if (const char* error = check_weights("linear_add", weights, x.dtype, x.cols(), y.cols() - offset, true)) return error;
  Gemm g = {};
  g.m = x.rows(), g.n = weights.total(), g.k = x.cols();
  g.a = x.data, g.lda = g.k;
  g.b = weights.w[0].data, g.transpose_b = true, g.ldb = g.k;
  g.c = offset_of(y.data, offset, y.dtype), g.ldc = y.cols(), g.beta = 1;
  g.in_dtype = DType(x.dtype), g.out_dtype = DType(y.dtype);
  return gemm(g, c.stream);
}

// dw_i = dy_i' x [O_i, I], or x' dy_i [I, O_i] for layout 1, where the dy_i are dy's columns one after another from columnOffset on.
KERNEL(linear_dw, kFloats) {
  const View &dy = c.in[0], &x = c.in[1];
  const int64_t offset = int64_t(c.attrs[1]), inputs = x.cols();
  const int layout = int(c.attrs[2]);
  const bool accumulate = c.attrs[3] != 0;
  int64_t columns = 0;
  bool fits = dy.rows() == x.rows() && dy.dtype == x.dtype;
  for (int i = 0; i < c.n_out; i++) {
    fits = fits && c.out[i].rank == 2 && c.out[i].dims[layout ? 0 : 1] == inputs;
    columns += c.out[i].dims[layout ? 1 : 0];
  }
  if (!fits || offset + columns > dy.cols())
    return error_text("linear_dw: dy, x and dw do not fit together (columns %lld to %lld of %lld)", (long long)offset,
                      (long long)(offset + columns), (long long)dy.cols());
  if (layout == 0 && are_adjacent(c.out, c.n_out)) return weight_gradient(c, offset, columns, c.out[0], layout, accumulate);
  int64_t column = offset;
  for (int i = 0; i < c.n_out; i++) {
    const int64_t width = c.out[i].dims[layout ? 1 : 0];
    if (const char* error = weight_gradient(c, column, width, c.out[i], layout, accumulate)) return error;
    column += width;
  }
  return nullptr;
}

}  // namespace ds
