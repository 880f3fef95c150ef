// The pieces behind gemm(): plans, their tuning, and the kernels that step in where cuBLASLt has no algorithm.
#pragma once
#include "cublaslt.h"
#include "gemm.h"

namespace ds {

// cuBLASLt's workspace. Split-K keeps its partial products in it.
constexpr size_t kGemmWorkspace = size_t(64) << 20;

// ---- plans (gemm_plan.cc) ----------------------------------------------------------------------------------
// What cuBLASLt is told about a product of one shape, and the algorithm chosen for it.
struct Plan {
  lt::Operation operation = nullptr;
  lt::Layout a = nullptr, b = nullptr, c = nullptr;  // of the row-major A, B and C
  lt::Heuristic chosen = {};
  static constexpr int kCandidates = 12;
  lt::Heuristic candidates[kCandidates];  // by estimated time; the first is the default
  int n_candidates = 0;                   // 0: cuBLASLt has no algorithm for this
  bool tuned = false;

  Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan();
};

// The plan for a product, made by its first use; nullptr with *error set where cuBLASLt cannot be used at all.
Plan* find_plan(const Gemm& g, const char** error);
// One product by `algorithm`, on the pointers of `g`.
lt::Status run_plan(const Plan& plan, const lt::Heuristic& algorithm, const Gemm& g, void* workspace, cudaStream_t stream);

// ---- tuning (gemm_tune.cc) -----------------------------------------------------------------------------------
// Times the candidates of a big product once and chooses the fastest of those with the default's bits.
void tune_plan(Plan& plan, const Gemm& g, void* workspace, cudaStream_t stream);
// Elements that the stored rows of A, B, C and aux span, over the whole batch.
int64_t span_a(const Gemm& g);
int64_t span_b(const Gemm& g);
int64_t span_c(const Gemm& g);

// ---- kernels (ops/gemm_*.cu, ops/column_sum.cu) -----------------------------------------------------------------
// C = alpha op(A) op(B) + beta C without tensor cores or any demand on alignment; also for k = 0. Slow: the last resort.
void gemm_plain(const Gemm& g, cudaStream_t stream);
// The product of at most four rows by a weight stored [n, k], at the speed of reading it; false: not such a product (or unaligned).
bool gemm_few_rows(const Gemm& g, cudaStream_t stream);
// C [m, n] = beta C + bias, the start of a product that is then added to it. bias may be nullptr.
void seed_rows(void* c, int c_dtype, int64_t ldc, const void* bias, int bias_dtype, float beta, int64_t m, int64_t n, cudaStream_t stream);
// y = gelu_tanh(x)
void gelu_rows(void* y, int y_dtype, int64_t ldy, const void* x, int x_dtype, int64_t ldx, int64_t m, int64_t n, cudaStream_t stream);

// Values in [-1, 1) that depend on (seed, i) alone.
void fill_random(void* to, int dtype, int64_t count, uint32_t seed, cudaStream_t stream);
// *hash += a hash of `words` 32-bit words and their places; integers only, so any order of additions gives the same.
void hash_words(const void* from, int64_t words, unsigned long long* hash, cudaStream_t stream);

// Outputs that lie side by side in the columns of one input: piece i is columns [begin[i], begin[i + 1]).
struct ColumnPieces {
  static constexpr int kMax = 8;
  void* out[kMax];
  int dtype[kMax];
  int64_t begin[kMax + 1];
  int count;
};
// Bytes of partial sums that column_sums() wants for rows [rows, columns].
size_t column_sums_bytes(int64_t rows, int64_t columns);
// out[j] = sum over the rows of x[:, j], plus out[j] when accumulate. x has `ld` elements between rows. The order of additions is
// fixed by the shape.
void column_sums(const void* x, int dtype, int64_t ld, int64_t rows, const ColumnPieces& pieces, bool accumulate, void* partial,
                 cudaStream_t stream);

// The second half of it: out[j] = sum over the lines of partial [lines, columns], and so on.
void add_column_sums(const float* partial, int64_t lines, const ColumnPieces& pieces, bool accumulate, cudaStream_t stream);

// dx = dy gelu_tanh'(x), y = gelu_tanh(x) and sums = the sums of dx's columns (plus what is there when accumulate) in one pass over
// [rows, columns] of one dtype; dx may be dy. `partial` has so many bytes.
size_t gelu_backward_sums_bytes(int64_t rows, int64_t columns, int dtype);
void gelu_backward_sums(const void* dy, const void* x, void* dx, void* y, int dtype, int64_t rows, int64_t columns, const View& sums,
                        bool accumulate, void* partial, cudaStream_t stream);

}  // namespace ds
