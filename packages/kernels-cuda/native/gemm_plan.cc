// Plans by shape. cuBLASLt is column-major: a row-major C [m, n] is its [n, m], so C' = op(B)' op(A)' and the two inputs change places.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "gemm_parts.h"

namespace ds {

namespace {

// All that a plan depends on. Pointers count by their alignment alone, up to the 16 bytes that the widest access (and TMA) asks
// for: more would give views of one buffer different algorithms, so different bits, for nothing.
struct Key {
  int64_t m, n, k, lda, ldb, ldc, ld_aux, batch, stride_a, stride_b, stride_c;
  uint32_t kind, alignment;
  bool operator==(const Key& other) const { return memcmp(this, &other, sizeof *this) == 0; }
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t words[sizeof(Key) / 8], hash = 0x9E3779B97F4A7C15ull;
    static_assert(sizeof words == sizeof key, "no padding");
    memcpy(words, &key, sizeof key);
    for (uint64_t word : words) hash = (hash ^ word) * 0xBF58476D1CE4E5B9ull, hash ^= hash >> 29;
    return size_t(hash);
  }
};

using Plans = std::unordered_map<Key, std::unique_ptr<Plan>, KeyHash>;
// Serving meets ever new numbers of rows; beyond this all plans are made anew.
constexpr size_t kMostPlans = 4096;

uint32_t alignment_of(const void* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  for (uint32_t bytes = 16; bytes > 1; bytes /= 2)
    if (address % bytes == 0) return bytes;
  return 1;
}

int type_of(DType dtype) { return dtype == F32 ? lt::kType32F : dtype == F16 ? lt::kType16F : lt::kType16BF; }

uint32_t epilogue_of(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kNone: return lt::kEpilogueNone;
    case Epilogue::kBias: return lt::kEpilogueBias;
    case Epilogue::kGeluAuxBias: return lt::kEpilogueGeluAuxBias;
  }
  return lt::kEpilogueNone;
}

bool has_aux(Epilogue e) { return e == Epilogue::kGeluAuxBias; }

const void* bias_pointer(const Gemm& g) {
  return g.epilogue == Epilogue::kBias || g.epilogue == Epilogue::kGeluAuxBias ? g.bias : nullptr;
}

Key key_of(const Gemm& g) {
  Key key;
  memset(&key, 0, sizeof key);
  key.m = g.m, key.n = g.n, key.k = g.k, key.lda = g.lda, key.ldb = g.ldb, key.ldc = g.ldc;
  key.batch = g.batch;
  if (g.batch > 1) key.stride_a = g.stride_a, key.stride_b = g.stride_b, key.stride_c = g.stride_c;
  key.ld_aux = has_aux(g.epilogue) ? g.ld_aux : 0;
  key.kind = uint32_t(g.transpose_a) | uint32_t(g.transpose_b) << 1 | uint32_t(g.beta != 0) << 2 | uint32_t(g.in_dtype) << 4 |
             uint32_t(g.out_dtype) << 8 | uint32_t(g.epilogue) << 12;
  uint32_t alignment = alignment_of(g.a) | alignment_of(g.b) << 6 | alignment_of(g.c) << 12;
  if (bias_pointer(g)) alignment |= alignment_of(bias_pointer(g)) << 18;
  if (has_aux(g.epilogue)) alignment |= alignment_of(g.aux) << 24;
  key.alignment = alignment;
  return key;
}

template <class T> lt::Status set(const lt::Table& t, lt::Operation operation, int attribute, T value) {
  return t.operation_set(operation, attribute, &value, sizeof value);
}
template <class T> lt::Status prefer(const lt::Table& t, lt::Preference preference, int attribute, T value) {
  return t.preference_set(preference, attribute, &value, sizeof value);
}

lt::Status point(const lt::Table& t, const Plan& plan, const Gemm& g) {
  lt::Status status = lt::kSuccess;
  if (const void* bias = bias_pointer(g)) status = set(t, plan.operation, lt::kOperationBiasPointer, bias);
  if (status == lt::kSuccess && has_aux(g.epilogue)) status = set(t, plan.operation, lt::kOperationAuxPointer, (const void*)g.aux);
  return status;
}

lt::Status describe(const lt::Table& t, const Gemm& g, Plan& plan) {
  static const bool tf32 = getenv("DEEPSPEED_TS_CUDA_TF32") && strcmp(getenv("DEEPSPEED_TS_CUDA_TF32"), "1") == 0;
  const int in = type_of(g.in_dtype);
  lt::Status s = t.operation_create(&plan.operation, g.in_dtype == F32 && tf32 ? lt::kCompute32FTf32 : lt::kCompute32F, lt::kType32F);
  const auto also = [&](auto step) { if (s == lt::kSuccess) s = step(); };
  // cuBLASLt's first input is our B: [n, k] in its eyes as stored, or [k, n] when ours is stored transposed. Likewise the second.
  also([&] { return set(t, plan.operation, lt::kOperationTransposeA, int32_t(g.transpose_b ? lt::kTransposed : lt::kAsStored)); });
  also([&] { return set(t, plan.operation, lt::kOperationTransposeB, int32_t(g.transpose_a ? lt::kTransposed : lt::kAsStored)); });
  also([&] { return t.layout_create(&plan.b, in, g.transpose_b ? g.k : g.n, g.transpose_b ? g.n : g.k, g.ldb); });
  also([&] { return t.layout_create(&plan.a, in, g.transpose_a ? g.m : g.k, g.transpose_a ? g.k : g.m, g.lda); });
  also([&] { return t.layout_create(&plan.c, type_of(g.out_dtype), g.n, g.m, g.ldc); });
  if (g.epilogue != Epilogue::kNone) {
    also([&] { return set(t, plan.operation, lt::kOperationEpilogue, epilogue_of(g.epilogue)); });
    if (has_aux(g.epilogue)) also([&] { return set(t, plan.operation, lt::kOperationAuxLd, g.ld_aux); });
    also([&] { return point(t, plan, g); });
  }
  if (g.batch > 1) {
    const int32_t batch = int32_t(g.batch);
    const struct { lt::Layout layout; int64_t stride; } all[] = {{plan.a, g.stride_a}, {plan.b, g.stride_b}, {plan.c, g.stride_c}};
    for (const auto& one : all) {
      also([&] { return t.layout_set(one.layout, lt::kLayoutBatchCount, &batch, sizeof batch); });
      also([&] { return t.layout_set(one.layout, lt::kLayoutBatchStride, &one.stride, sizeof one.stride); });
    }
  }
  return s;
}

// The candidates, by cuBLASLt's estimate of their time. None is an answer too: the caller has other ways then.
void ask(const lt::Table& t, const Gemm& g, Plan& plan) {
  lt::Preference preference = nullptr;
  if (t.preference_create(&preference) != lt::kSuccess) return;
  prefer(t, preference, lt::kPreferenceWorkspace, uint64_t(kGemmWorkspace));
  prefer(t, preference, lt::kPreferenceAlignmentA, alignment_of(g.b));
  prefer(t, preference, lt::kPreferenceAlignmentB, alignment_of(g.a));
  prefer(t, preference, lt::kPreferenceAlignmentC, alignment_of(g.c));
  prefer(t, preference, lt::kPreferenceAlignmentD, alignment_of(g.c));
  // A product of bf16 adds its parts in f32 or not at all; other ways only where there is no algorithm without.
  for (uint32_t reductions : {lt::kReductionF32, lt::kReductionAny}) {
    prefer(t, preference, lt::kPreferenceReductions, reductions);
    lt::Heuristic found[Plan::kCandidates] = {};
    int count = 0;
    const lt::Status status =
        t.heuristics(t.handle, plan.operation, plan.b, plan.a, plan.c, plan.c, preference, Plan::kCandidates, found, &count);
    for (int i = 0; status == lt::kSuccess && i < count; i++)
      if (found[i].state == lt::kSuccess && found[i].workspace <= kGemmWorkspace) plan.candidates[plan.n_candidates++] = found[i];
    if (plan.n_candidates > 0) break;
  }
  t.preference_destroy(preference);
  if (plan.n_candidates > 0) plan.chosen = plan.candidates[0];
}

}  // namespace

Plan::~Plan() {
  const lt::Table* t = cublaslt();
  if (!t) return;
  if (operation) t->operation_destroy(operation);
  for (lt::Layout layout : {a, b, c})
    if (layout) t->layout_destroy(layout);
}

Plan* find_plan(const Gemm& g, const char** error) {
  // Used by the dispatcher's thread alone. Never destroyed: at exit the library may be gone first.
  static Plans& plans = *new Plans;
  const lt::Table* t = cublaslt();
  if (!t) return *error = cublaslt_unavailable(), nullptr;
  const Key key = key_of(g);
  const auto found = plans.find(key);
  if (found != plans.end()) return found->second.get();
  if (plans.size() >= kMostPlans) plans.clear();
  auto plan = std::make_unique<Plan>();
  if (describe(*t, g, *plan) == lt::kSuccess) ask(*t, g, *plan);
  return plans.emplace(key, std::move(plan)).first->second.get();
}

lt::Status run_plan(const Plan& plan, const lt::Heuristic& algorithm, const Gemm& g, void* workspace, cudaStream_t stream) {
  const lt::Table& t = *cublaslt();
  if (const lt::Status status = point(t, plan, g)) return status;
  return t.matmul(t.handle, plan.operation, &g.alpha, g.b, plan.b, g.a, plan.a, &g.beta, g.c, plan.c, g.c, plan.c, &algorithm.algorithm,
                  workspace, kGemmWorkspace, stream);
}

}  // namespace ds
