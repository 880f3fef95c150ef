#include "cudnn_attention.h"

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <utility>

#include "cudnn_graph.h"

// Attention as a graph of products, pointwise operations and reductions that cuDNN recognises as a whole and runs as one fused
// kernel forward, three backward: the scores never reach memory forward. Q, K and V are strided views of the packed rows.
// cuDNN's own statistic is max + ln(sum exp(scaled scores - max)) per row: our lse, natural logarithm and all, so forward and
// backward may come from different kernels.
namespace ds {
namespace {

using cudnn::Binding;
using cudnn::Dims;
using cudnn::Graph;
using cudnn::Plan;
using cudnn::Pointwise;
using cudnn::Reduction;
using cudnn::Tensor;

constexpr int64_t kMinTokens = 64;  // shorter ones are bound by launches, whoever computes them
constexpr int64_t kPointerAlignment = 16;
// Backward's workspace: a launch takes as many sequences and heads as fit in the first, and one group of heads may take the second.
constexpr int64_t kBackwardBytes = int64_t{1} << 30;
constexpr int64_t kBackwardBytesMost = int64_t{4} << 30;

enum Id : int64_t { kQ = 1, kK, kV, kO, kLse, kScale, kMasked, kDO, kDQ, kDK, kDV, kDelta, kOne };

// What one launch computes: so many sequences, so many key heads with the query heads they serve.
struct Part {
  int64_t batch, kv_heads;
};

// Shapes and strides (elements) of the views that a part sees: [batch, heads, tokens, head_dim].
struct Views {
  Views(const AttentionShape& s, const Part& part)
      : type(s.dtype == BF16 ? cudnn::DataType::kBFloat16 : cudnn::DataType::kHalf) {
    const int64_t b = part.batch, hkv = part.kv_heads, h = hkv * (s.heads / s.kv_heads), t = s.tokens, d = s.head_dim;
    const int64_t row = (s.heads + 2 * s.kv_heads) * d;
    q = {b, h, t, d};
    kv = {b, hkv, t, d};
    kv_transposed = {b, hkv, d, t};
    scores = {b, h, t, t};
    rows = {b, h, t, 1};
    qkv_strides = {t * row, d, row, 1};
    qkv_transposed_strides = {t * row, d, 1, row};
    out_strides = {t * s.heads * d, d, s.heads * d, 1};
  }
  cudnn::DataType type;
  Dims q, kv, kv_transposed, scores, rows, qkv_strides, qkv_transposed_strides, out_strides;
};

constexpr auto kF32 = cudnn::DataType::kFloat;

Graph forward_graph(const AttentionShape& s, const Part& part) {
  const Views v(s, part);
  Graph g;
  const Tensor q = g.memory(kQ, v.type, v.q, v.qkv_strides);
  const Tensor k = g.memory(kK, v.type, v.kv_transposed, v.qkv_transposed_strides);
  const Tensor value = g.memory(kV, v.type, v.kv, v.qkv_strides);
  const Tensor out = g.memory(kO, v.type, v.q, v.out_strides);
  const Tensor lse = g.memory(kLse, kF32, v.rows, cudnn::packed(v.rows));

  const Tensor products = g.inner(kF32, v.scores);
  g.matmul(q, k, products);
  Tensor scores = g.apply(Pointwise::kMul, products, g.scalar(kScale));
  if (s.causal) scores = g.lower_triangle(scores, g.scalar(kMasked));

  const Tensor max = g.inner(kF32, v.rows);
  g.reduce(Reduction::kMax, scores, max);
  const Tensor exponentials = g.apply(Pointwise::kExp, g.apply(Pointwise::kSub, scores, max));
  const Tensor sum = g.inner(kF32, v.rows);
  g.reduce(Reduction::kAdd, exponentials, sum);
  g.pointwise(Pointwise::kAdd, max, g.apply(Pointwise::kLog, sum), lse);
  const Tensor probabilities = g.inner(v.type, v.scores);  // rounded: the tensor cores' second product takes q's type
  g.pointwise(Pointwise::kDiv, exponentials, sum, probabilities);
  g.matmul(probabilities, value, out);
  return g;
}

// dK and dV are per key head: partial results per query head (rounded to the inputs' type), then their sum over the group.
void gradient_of_heads(Graph& g, const Views& v, const Tensor& transposed, const Tensor& with, const Tensor& gradient) {
  if (v.q[1] == v.kv[1]) return g.matmul(transposed, with, gradient);
  const Tensor each = g.inner(v.type, v.q);
  g.matmul(transposed, with, each);
  g.reduce(Reduction::kAdd, each, gradient);
}

// dQ is the product of all of dS with K at once, so cuDNN keeps dS (2 bytes a score) in its workspace and each sum has one order.
// The form with less memory adds dQ's parts from blocks of keys with atomics, in the order in which blocks happen to end: its
// results differ between runs, which training must not. (cuDNN's notes on its engines do not tell the two apart.)
Graph backward_graph(const AttentionShape& s, const Part& part) {
  const Views v(s, part);
  Graph g;
  const Tensor q = g.memory(kQ, v.type, v.q, v.qkv_strides);
  const Tensor k = g.memory(kK, v.type, v.kv_transposed, v.qkv_transposed_strides);
  const Tensor value = g.memory(kV, v.type, v.kv_transposed, v.qkv_transposed_strides);
  const Tensor out = g.memory(kO, v.type, v.q, v.out_strides);
  const Tensor d_out = g.memory(kDO, v.type, v.q, v.out_strides);
  const Tensor lse = g.memory(kLse, kF32, v.rows, cudnn::packed(v.rows));
  const Tensor dq = g.memory(kDQ, v.type, v.q, v.qkv_strides);
  const Tensor dk = g.memory(kDK, v.type, v.kv, v.qkv_strides);
  const Tensor dv = g.memory(kDV, v.type, v.kv, v.qkv_strides);
  const Tensor scale = g.scalar(kScale);

  // delta = rows' dO . O, in memory: its own small kernel. The factor one stands where dropout would have its own.
  const Tensor delta_sum = g.inner(kF32, v.rows);
  g.reduce(Reduction::kAdd, g.apply(Pointwise::kMul, d_out, out), delta_sum);
  const Tensor delta = g.memory(kDelta, kF32, v.rows, cudnn::packed(v.rows));
  g.pointwise(Pointwise::kMul, delta_sum, g.scalar(kOne), delta);

  // P = exp(scale Q K' - lse), masked after the subtraction; dV = P' dO.
  const Tensor products = g.inner(kF32, v.scores);
  g.matmul(q, k, products);
  Tensor scores = g.apply(Pointwise::kSub, g.apply(Pointwise::kMul, products, scale), lse);
  if (s.causal) scores = g.lower_triangle(scores, g.scalar(kMasked));
  const Tensor probabilities = g.apply(Pointwise::kExp, scores);
  const auto transposed = [&](const Tensor& x) {
    Dims strides = x.strides;
    std::swap(strides[2], strides[3]);
    const Tensor y = g.inner(v.type, v.scores, strides);
    g.reshape(x, y);
    return y;
  };
  gradient_of_heads(g, v, transposed(probabilities), d_out, dv);

  // dS = scale P (dO V' - delta); dK = dS' Q; dQ = dS K.
  const Tensor d_probabilities = g.inner(kF32, v.scores);
  g.matmul(d_out, value, d_probabilities);
  const Tensor corrected = g.apply(Pointwise::kMul, g.apply(Pointwise::kSub, d_probabilities, delta), probabilities);
  const Tensor d_scores = g.apply(Pointwise::kMul, corrected, scale);
  gradient_of_heads(g, v, transposed(d_scores), q, dk);
  const Tensor keys = g.inner(kF32, v.kv, v.qkv_strides);
  g.reshape(k, keys);
  g.matmul(d_scores, keys, dq);
  return g;
}

// ---- which shapes, in which parts --------------------------------------------------------------------------

int64_t smaller_divisor(int64_t n, int64_t than) {
  for (int64_t d = than - 1; d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// What backward keeps of dS.
int64_t score_bytes(const AttentionShape& s, const Part& part) {
  return 2 * part.batch * part.kv_heads * (s.heads / s.kv_heads) * round_up(s.tokens, 64) * round_up(s.tokens, 128);
}

Part backward_part(const AttentionShape& s) {
  Part part{s.batch, s.kv_heads};
  while (part.batch > 1 && score_bytes(s, part) > kBackwardBytes) part.batch = smaller_divisor(s.batch, part.batch);
  while (part.kv_heads > 1 && score_bytes(s, part) > kBackwardBytes) part.kv_heads = smaller_divisor(s.kv_heads, part.kv_heads);
  return part;
}

// Why a shape is not served, before cuDNN is asked; empty: ask.
std::string refusal(const AttentionShape& s, bool backward, const Part& part) {
  const int major = device_properties().major;
  if (s.dtype != BF16 && s.dtype != F16) return "only bf16 and f16";
  if (s.window > 0) return "no sliding window";
  if (s.tokens < kMinTokens) return "fewer than " + std::to_string(kMinTokens) + " tokens";
  if (s.batch < 1 || s.kv_heads < 1 || s.heads % s.kv_heads) return "no such heads";
  if (s.head_dim % 8 || s.head_dim > 256) return "a head_dim that is not a multiple of 8 up to 256";
  if (major < 8) return "compute capability below 8.0";
  if (!backward) return "";
  // Elsewhere this form is not the one whose results repeat.
  if (major != 9) return "repeatable backward only with compute capability 9.x";
  if (s.tokens % 128 && cudnn::api()->version() <= 91500) return "ragged blocks of 128 tokens need cuDNN 9.16";
  if (score_bytes(s, part) > kBackwardBytesMost) return "backward's scores need " + std::to_string(score_bytes(s, part)) + " bytes";
  const bool parted = part.batch != s.batch || part.kv_heads != s.kv_heads;
  if (parted && s.tokens % 4) return "parts of lse would not be aligned to 16 bytes";
  return "";
}

void report(const AttentionShape& s, bool backward, const std::string& text) {
  static const bool wanted = [] {
    const char* value = std::getenv("DEEPSPEED_TS_ATTENTION_DEBUG");
    return value && *value && *value != '0';
  }();
  if (!wanted) return;
  std::fprintf(stderr, "deepspeed-ts: cuDNN attention %s [%lld, %lld, %lld+2*%lld, %lld]%s: %s\n", backward ? "backward" : "forward",
               static_cast<long long>(s.batch), static_cast<long long>(s.tokens), static_cast<long long>(s.heads),
               static_cast<long long>(s.kv_heads), static_cast<long long>(s.head_dim), s.causal ? " causal" : "", text.c_str());
}

struct Prepared {
  Plan plan;
  Part part;
  std::string refused;  // not empty: why another kernel has to
};

// Made once per shape, direction and dtype: cuDNN compiles the kernel, a fraction of a second. The scale is an argument of the
// plan. Never destroyed: cuDNN may be gone before static objects are.
Prepared& prepared(const AttentionShape& s, bool backward, cudnn::Handle handle) {
  using Key = std::array<int64_t, 8>;
  static auto* const cache = new std::map<Key, Prepared>;
  const Key key{backward, s.batch, s.tokens, s.heads, s.kv_heads, s.head_dim, s.causal + 2 * s.window, s.dtype};
  const auto found = cache->find(key);
  if (found != cache->end()) return found->second;

  Prepared& made = (*cache)[key];
  made.part = backward && s.kv_heads > 0 ? backward_part(s) : Part{s.batch, s.kv_heads};
  made.refused = refusal(s, backward, made.part);
  if (made.refused.empty()) {
    made.plan = Plan::build(backward ? backward_graph(s, made.part) : forward_graph(s, made.part), handle, backward);
    if (!made.plan.ready()) made.refused = made.plan.failure();
  }
  report(s, backward, made.refused.empty() ? made.plan.description() : "not served: " + made.refused);
  return made;
}

// ---- calls -------------------------------------------------------------------------------------------------

struct Pointers {
  const void* qkv;
  const void* y;
  const float* lse;
  const void* dy = nullptr;
  const void* dqkv = nullptr;
};

bool aligned(const Pointers& p) {
  for (const void* pointer : {p.qkv, p.y, static_cast<const void*>(p.lse), p.dy, p.dqkv})
    if (reinterpret_cast<uintptr_t>(pointer) % kPointerAlignment) return false;
  return true;
}

const char* offset(const void* base, int64_t elements) { return static_cast<const char*>(base) + 2 * elements; }

// One launch: sequences from `b` on, key heads from `h` on.
cudnn::Status run_part(const AttentionShape& s, const Prepared& made, cudnn::Handle handle, const Pointers& p, void* workspace,
                       void* delta, int64_t b, int64_t h) {
  // -inf where cuDNN takes it; before 9.10 the lowest finite number did the same.
  using Limits = std::numeric_limits<float>;
  const float masked = cudnn::api()->version() >= 91000 ? -Limits::infinity() : Limits::lowest();
  const float one = 1;
  const int64_t d = s.head_dim, q_head = h * (s.heads / s.kv_heads);
  const int64_t token = b * s.tokens * (s.heads + 2 * s.kv_heads) * d;
  const int64_t q = token + q_head * d, k = token + (s.heads + h) * d, v = token + (s.heads + s.kv_heads + h) * d;
  const int64_t out = (b * s.tokens * s.heads + q_head) * d;
  Binding bindings[16];
  size_t count = 0;
  const auto bind = [&](int64_t id, const void* pointer) { bindings[count++] = {id, pointer}; };
  bind(kQ, offset(p.qkv, q));
  bind(kK, offset(p.qkv, k));
  bind(kV, offset(p.qkv, v));
  bind(kO, offset(p.y, out));
  bind(kLse, p.lse + (b * s.heads + q_head) * s.tokens);
  bind(kScale, &s.scale);
  if (s.causal) bind(kMasked, &masked);
  if (p.dqkv) {
    bind(kDO, offset(p.dy, out));
    bind(kDQ, offset(p.dqkv, q));
    bind(kDK, offset(p.dqkv, k));
    bind(kDV, offset(p.dqkv, v));
    bind(kDelta, delta);
    bind(kOne, &one);
  }
  return made.plan.run(handle, bindings, count, workspace);
}

Served serve(const AttentionShape& s, bool backward, const Pointers& p, cudaStream_t stream, const char** error) {
  if (!cudnn::api()) {
    static bool reported = false;
    if (!std::exchange(reported, true)) report(s, backward, cudnn::unavailable());
    return Served::kNo;
  }
  if (!aligned(p)) return Served::kNo;
  std::string reason;
  const cudnn::Handle handle = cudnn::handle(stream, &reason);
  if (!handle) {
    report(s, backward, reason);
    return Served::kNo;
  }
  Prepared& made = prepared(s, backward, handle);
  if (!made.refused.empty()) return Served::kNo;

  const int64_t part_heads = made.part.kv_heads * (s.heads / s.kv_heads);
  const size_t workspace_bytes = round_up(static_cast<int64_t>(made.plan.workspace_bytes()), 256);
  const size_t delta_bytes = backward ? sizeof(float) * made.part.batch * part_heads * s.tokens : 0;
  char* workspace = nullptr;
  if (workspace_bytes + delta_bytes > 0) {
    workspace = static_cast<char*>(scratch(kScratchAttention, workspace_bytes + delta_bytes));
    if (!workspace) {
      *error = kNoWorkspace;
      return Served::kFailed;
    }
  }
  for (int64_t b = 0; b < s.batch; b += made.part.batch) {
    for (int64_t h = 0; h < s.kv_heads; h += made.part.kv_heads) {
      const cudnn::Status status = run_part(s, made, handle, p, workspace, workspace + workspace_bytes, b, h);
      if (status == cudnn::kSuccess) continue;
      const std::string text = cudnn::status_text(status);
      if (cudnn::not_supported(status)) {  // parts already done are written again by the kernel that takes over
        made.refused = text;
        report(s, backward, "not served after all: " + text);
        return Served::kNo;
      }
      *error = error_text("cuDNN attention %s failed: %s", backward ? "backward" : "forward", text.c_str());
      return Served::kFailed;
    }
  }
  return Served::kYes;
}

}  // namespace

Served cudnn_attention_forward(const AttentionShape& s, const void* qkv, void* y, float* lse, cudaStream_t stream, const char** error) {
  return serve(s, false, {qkv, y, lse}, stream, error);
}

Served cudnn_attention_backward(const AttentionShape& s, const void* dy, const void* qkv, const void* y, const float* lse, void* dqkv,
                                cudaStream_t stream, const char** error) {
  return serve(s, true, {qkv, y, lse, dy, dqkv}, stream, error);
}

}  // namespace ds
