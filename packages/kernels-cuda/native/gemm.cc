// A product of a few rows goes to a kernel that reads the weight once; others to cuBLASLt with their epilogue. Where that has no
// algorithm for the epilogue (alignment, dtype) they become a product and kernels around it; where it has none at all, a plain kernel.
#include "gemm.h"

#include "gemm_parts.h"

namespace ds {

namespace {

const char* check(const Gemm& g) {
  if (g.in_dtype != F32 && g.in_dtype != BF16 && g.in_dtype != F16)
    return error_text("gemm: inputs of a float dtype, got code %d", g.in_dtype);
  if (g.out_dtype != g.in_dtype && g.out_dtype != F32)
    return error_text("gemm: an output of the inputs' dtype (code %d) or f32, got code %d", g.in_dtype, g.out_dtype);
  if (g.batch > 1 && g.epilogue != Epilogue::kNone) return "gemm: a batch takes no epilogue";
  return nullptr;
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

// *served is false where cuBLASLt has no algorithm.
const char* by_library(const Gemm& g, cudaStream_t stream, bool* served) {
  const char* error = nullptr;
  Plan* plan = find_plan(g, &error);
  if (!plan) return error;
  *served = plan->n_candidates > 0;
  if (!*served) return nullptr;
  void* workspace = scratch(kScratchGemm, kGemmWorkspace);
  if (!workspace) return kNoWorkspace;
  if (!plan->tuned && !is_capturing(stream)) tune_plan(*plan, g, workspace, stream);
  const lt::Status status = run_plan(*plan, plan->chosen, g, workspace, stream);
  if (status == lt::kSuccess) return nullptr;
  return error_text("gemm: cuBLASLt failed on [%lld, %lld] x [%lld, %lld], dtype %d to %d, epilogue %d: %s", (long long)g.m, (long long)g.k,
                    (long long)g.k, (long long)g.n, g.in_dtype, g.out_dtype, int(g.epilogue), cublaslt()->status_string(status));
}

const char* without_epilogue(const Gemm& g, cudaStream_t stream) {
  bool served = false;
  if (g.k > 0)
    if (const char* error = by_library(g, stream, &served)) return error;
  if (!served) gemm_plain(g, stream);
  return nullptr;
}

// The bias goes into C first and the product is added to it, so the sum is rounded once, as in the epilogue.
const char* product_onto_bias(Gemm g, cudaStream_t stream) {
  seed_rows(g.c, g.out_dtype, g.ldc, g.bias, g.in_dtype, g.beta, g.m, g.n, stream);
  g.beta = 1, g.epilogue = Epilogue::kNone;
  return without_epilogue(g, stream);
}

// The product behind kGeluAuxBias: aux, with its bias.
Gemm before_gelu(const Gemm& g) {
  Gemm inner = g;
  inner.c = g.aux, inner.ldc = g.ld_aux, inner.out_dtype = g.in_dtype, inner.beta = 0, inner.epilogue = Epilogue::kBias;
  return inner;
}

const char* around(const Gemm& g, cudaStream_t stream) {
  if (g.epilogue == Epilogue::kBias) return product_onto_bias(g, stream);
  if (const char* error = product_onto_bias(before_gelu(g), stream)) return error;
  gelu_rows(g.c, g.out_dtype, g.ldc, g.aux, g.in_dtype, g.ld_aux, g.m, g.n, stream);
  return nullptr;
}

// What cuBLASLt's epilogues ask for beyond what its heuristics look at.
bool fits_epilogue(const Gemm& g) {
  if (g.out_dtype != g.in_dtype) return false;
  const bool aux = g.epilogue != Epilogue::kBias;
  return !aux || (g.ld_aux % 8 == 0 && g.beta == 0);
}

}  // namespace

const char* gemm(const Gemm& g, cudaStream_t stream) {
  if (const char* error = check(g)) return error;
  if (g.m == 0 || g.n == 0 || g.batch == 0) return nullptr;
  if (gemm_few_rows(g, stream)) return nullptr;
  if (g.epilogue == Epilogue::kGeluAuxBias && gemm_few_rows(before_gelu(g), stream)) {
    gelu_rows(g.c, g.out_dtype, g.ldc, g.aux, g.in_dtype, g.ld_aux, g.m, g.n, stream);
    return nullptr;
  }
  if (g.epilogue == Epilogue::kNone) return without_epilogue(g, stream);
  if (g.k > 0 && fits_epilogue(g)) {
    bool served = false;
    const char* error = by_library(g, stream, &served);
    if (error || served) return error;
  }
  return around(g, stream);
}

}  // namespace ds
