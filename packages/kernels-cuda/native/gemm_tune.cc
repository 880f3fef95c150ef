// The choice among cuBLASLt's candidates for a big product, by timing them once.
//
// A choice by the clock may differ between runs, ranks and ZeRO stages, and these promise equal bits. So a candidate counts only if
// it gives the bits of the default (cuBLASLt's own first choice, a function of shape and device): it then adds in the same order,
// and which of them runs can never be seen in the numbers. The test runs at full size, on random operands: a model's own may be
// zeros, which every order adds alike. It writes to memory of its own, so C and beta are safe.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "gemm_parts.h"

namespace ds {

namespace {

constexpr double kMostPerShape = 0.12;   // seconds: eight candidates of 3 ms, as a chunk of a large vocabulary's head takes
constexpr double kMostPerProcess = 4.0;  // serving meets new shapes for ever, and first steps must not wait
constexpr size_t kMostMemory = size_t(2) << 30;  // a chunk of logits and the head are the biggest
constexpr double kBigWork = 1e9;               // floating-point operations; below, a launch costs as much
constexpr int64_t kBigOperand = int64_t(8) << 20;  // bytes: few rows by a big weight
constexpr float kWorthIt = 0.98f;              // of the default's time, against noise

enum class Mode { kOff, kOn, kPrint };

Mode mode() {
  static const Mode it = [] {
    const char* value = getenv("DEEPSPEED_TS_CUDA_TUNE");
    if (!value || strcmp(value, "1") == 0) return Mode::kOn;
    return strcmp(value, "print") == 0 ? Mode::kPrint : Mode::kOff;
  }();
  return it;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int64_t span(int64_t rows, int64_t cols, int64_t ld, int64_t batch, int64_t stride) {
  return (batch - 1) * (batch > 1 ? stride : 0) + (rows - 1) * ld + cols;
}

// Stand-ins for all that a product touches, in one block that is freed at the end.
struct Trial {
  Gemm g;
  cudaStream_t stream;
  char* block = nullptr;
  size_t bytes = 0, written = 0;  // [written, bytes) is what the product writes (and aux where it only reads it)
  unsigned long long* hash = nullptr;

  Trial(const Gemm& like, cudaStream_t on) : g(like), stream(on) {}
  Trial(const Trial&) = delete;
  ~Trial() {
    if (block) cudaFreeAsync(block, stream), cudaStreamSynchronize(stream);  // the pool gives freed memory back when the stream is idle
  }

  bool allocate() {
    const int64_t in = kElementBytes[g.in_dtype];
    const auto take = [&](int64_t count, int64_t each) {
      const size_t at = bytes;
      bytes += (size_t(count * each) + 255) / 256 * 256;
      return at;
    };
    const bool aux = g.aux && g.epilogue != Epilogue::kNone && g.epilogue != Epilogue::kBias;
    const size_t at_hash = take(1, 8), at_a = take(span_a(g), in), at_b = take(span_b(g), in), at_bias = take(g.n, in);
    written = bytes;
    const size_t at_c = take(span_c(g), kElementBytes[g.out_dtype]);
    const size_t at_aux = aux ? take(span(g.m, g.n, g.ld_aux, 1, 0), in) : 0;
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess || bytes > kMostMemory || bytes > free / 4) return false;
    if (cudaMallocAsync(reinterpret_cast<void**>(&block), bytes, stream) != cudaSuccess) {
      cudaGetLastError();
      block = nullptr;
      return false;
    }
    hash = reinterpret_cast<unsigned long long*>(block + at_hash);
    g.a = block + at_a, g.b = block + at_b, g.c = block + at_c;
    g.bias = block + at_bias;
    if (aux) g.aux = block + at_aux;
    fill_random(block + at_a, g.in_dtype, int64_t(written - at_a) / in, 1, stream);
    return true;
  }

  // Runs a candidate from the same beginning as the others; false: it does not run.
  bool result(const Plan& plan, const lt::Heuristic& candidate, void* workspace, unsigned long long* bits) {
    const int dtype = g.out_dtype;
    fill_random(block + written, dtype, int64_t(bytes - written) / kElementBytes[dtype], 2, stream);
    if (run_plan(plan, candidate, g, workspace, stream) != lt::kSuccess) return false;
    cudaMemsetAsync(hash, 0, sizeof *hash, stream);
    hash_words(block + written, int64_t(bytes - written) / 4, hash, stream);
    cudaMemcpyAsync(bits, hash, sizeof *bits, cudaMemcpyDeviceToHost, stream);
    return cudaStreamSynchronize(stream) == cudaSuccess;
  }

  // Milliseconds a run, the best of two goes.
  float time(const Plan& plan, const lt::Heuristic& candidate, void* workspace, int runs, cudaEvent_t begin, cudaEvent_t end) {
    float best = 1e30f;
    for (int go = 0; go < 2; go++) {
      cudaEventRecord(begin, stream);
      for (int i = 0; i < runs; i++) run_plan(plan, candidate, g, workspace, stream);
      cudaEventRecord(end, stream);
      float elapsed = 0;
      if (cudaEventSynchronize(end) != cudaSuccess || cudaEventElapsedTime(&elapsed, begin, end) != cudaSuccess) return 1e30f;
      if (elapsed / float(runs) < best) best = elapsed / float(runs);
    }
    return best;
  }
};

void print(const Gemm& g, const Plan& plan, int candidate, float milliseconds, const char* verdict) {
  const lt::Table& t = *cublaslt();
  int32_t id = 0, tile = 0, split = 0;
  size_t written = 0;
  const lt::Algorithm* algorithm = &plan.candidates[candidate].algorithm;
  t.algorithm_get(algorithm, lt::kAlgorithmId, &id, sizeof id, &written);
  t.algorithm_get(algorithm, lt::kAlgorithmTile, &tile, sizeof tile, &written);
  t.algorithm_get(algorithm, lt::kAlgorithmSplitK, &split, sizeof split, &written);
  const double work = 2.0 * double(g.m) * double(g.n) * double(g.k) * double(g.batch);
  fprintf(stderr, "gemm %lldx%lldx%lld b%lld %c%c dtype %d>%d beta %g epilogue %d: #%d id %d tile %d splitK %d %.4f ms %.0f TFLOP/s %s\n",
          (long long)g.m, (long long)g.n, (long long)g.k, (long long)g.batch, g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N',
          g.in_dtype, g.out_dtype, double(g.beta), int(g.epilogue), candidate, id, tile, split, double(milliseconds),
          work / double(milliseconds) * 1e-9, verdict);
}

void choose(Plan& plan, Trial& trial, void* workspace, cudaEvent_t begin, cudaEvent_t end) {
  const double until = now() + kMostPerShape;
  unsigned long long bits = 0, other = 0;
  if (!trial.result(plan, plan.candidates[0], workspace, &bits)) return;
  float first = trial.time(plan, plan.candidates[0], workspace, 1, begin, end);
  const int runs = first > 1 ? 1 : first > 0.1f ? 3 : 10;
  if (runs > 1) first = trial.time(plan, plan.candidates[0], workspace, runs, begin, end);
  if (mode() == Mode::kPrint) print(trial.g, plan, 0, first, "default");
  float best = first * kWorthIt;
  for (int i = 1; i < plan.n_candidates && (now() < until || mode() == Mode::kPrint); i++) {
    if (!trial.result(plan, plan.candidates[i], workspace, &other)) continue;
    const bool same = other == bits;
    if (!same && mode() != Mode::kPrint) continue;
    const float time = trial.time(plan, plan.candidates[i], workspace, runs, begin, end);
    if (mode() == Mode::kPrint) print(trial.g, plan, i, time, !same ? "other bits" : time < best ? "same bits, taken" : "same bits");
    if (same && time < best) best = time, plan.chosen = plan.candidates[i];
  }
}

}  // namespace

int64_t span_a(const Gemm& g) { return span(g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, g.batch, g.stride_a); }
int64_t span_b(const Gemm& g) { return span(g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, g.batch, g.stride_b); }
int64_t span_c(const Gemm& g) { return span(g.m, g.n, g.ldc, g.batch, g.stride_c); }

void tune_plan(Plan& plan, const Gemm& g, void* workspace, cudaStream_t stream) {
  static double spent = 0;
  plan.tuned = true;
  const double work = 2.0 * double(g.m) * double(g.n) * double(g.k) * double(g.batch);
  const bool big = work >= kBigWork || span_b(g) * kElementBytes[g.in_dtype] >= kBigOperand;
  if (mode() == Mode::kOff || !big || plan.n_candidates < 2 || (spent > kMostPerProcess && mode() == Mode::kOn)) return;
  const double started = now();
  {
    Trial trial(g, stream);
    cudaEvent_t begin = nullptr, end = nullptr;
    if (trial.allocate() && cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess)
      choose(plan, trial, workspace, begin, end);
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
  }
  spent += now() - started;
}

}  // namespace ds
