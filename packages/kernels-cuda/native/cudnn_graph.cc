#include "cudnn_graph.h"

namespace ds::cudnn {

constexpr int64_t kAlignment = 16;  // bytes, what the engines' vector accesses need
constexpr int kMaxBindings = 16;
constexpr int kMaxConfigs = 16;

Descriptors::~Descriptors() {
  // Users before what they use.
  for (auto it = owned_.rbegin(); it != owned_.rend(); ++it) api()->destroy_descriptor(*it);
}

Status Descriptors::create(Kind kind, Descriptor* out) {
  const Status status = api()->create_descriptor(kind, out);
  if (status == kSuccess) owned_.push_back(*out);
  return status;
}

// ---- graph -------------------------------------------------------------------------------------------------

void Graph::failed(const char* what, int code, Status status) {
  if (failure_.empty()) failure_ = std::string(what) + " " + std::to_string(code) + ": " + status_text(status);
}

Descriptor Graph::create(Kind kind) {
  if (!failure_.empty()) return nullptr;
  Descriptor descriptor = nullptr;
  if (const Status status = descriptors_.create(kind, &descriptor)) {
    failed("creating descriptor", static_cast<int>(kind), status);
    return nullptr;
  }
  return descriptor;
}

void Graph::set(Descriptor descriptor, Attribute attribute, Type type, int64_t count, const void* elements) {
  if (!failure_.empty()) return;
  if (const Status status = api()->set_attribute(descriptor, attribute, type, count, elements))
    failed("attribute", static_cast<int>(attribute), status);
}

void Graph::set(Descriptor descriptor, Attribute attribute, Descriptor value) {
  set(descriptor, attribute, Type::kDescriptor, 1, &value);
}

bool Graph::finalize(Descriptor descriptor) {
  if (!failure_.empty()) return false;
  if (const Status status = api()->finalize(descriptor))
    failed("operation", static_cast<int>(operations_.size()), status);
  return failure_.empty();
}

void Graph::operation(Descriptor descriptor) {
  if (finalize(descriptor)) operations_.push_back(descriptor);
}

Tensor Graph::tensor(int64_t id, DataType type, const Dims& dims, const Dims& strides, bool is_virtual, bool by_value) {
  const Tensor out{create(Kind::kTensor), dims, strides};
  set(out.descriptor, Attribute::kTensorDataType, Type::kDataType, 1, &type);
  set(out.descriptor, Attribute::kTensorDims, Type::kInt64, 4, dims.data());
  set(out.descriptor, Attribute::kTensorStrides, Type::kInt64, 4, strides.data());
  set(out.descriptor, Attribute::kTensorId, Type::kInt64, 1, &id);
  set(out.descriptor, Attribute::kTensorAlignment, Type::kInt64, 1, &kAlignment);
  if (is_virtual) set(out.descriptor, Attribute::kTensorVirtual, Type::kBoolean, 1, &is_virtual);
  if (by_value) set(out.descriptor, Attribute::kTensorByValue, Type::kBoolean, 1, &by_value);
  finalize(out.descriptor);
  return out;
}

Tensor Graph::memory(int64_t id, DataType type, const Dims& dims, const Dims& strides) {
  return tensor(id, type, dims, strides, false, false);
}

Tensor Graph::scalar(int64_t id) { return tensor(id, DataType::kFloat, {1, 1, 1, 1}, {1, 1, 1, 1}, false, true); }

Tensor Graph::inner(DataType type, const Dims& dims, const Dims& strides) {
  return tensor(next_inner_++, type, dims, strides, true, false);
}

void Graph::matmul(const Tensor& a, const Tensor& b, const Tensor& c) {
  const DataType compute = DataType::kFloat;
  const Descriptor how = create(Kind::kMatmul);
  set(how, Attribute::kMatmulComputeType, Type::kDataType, 1, &compute);
  finalize(how);
  const Descriptor op = create(Kind::kMatmulOp);
  set(op, Attribute::kMatmulOpA, a.descriptor);
  set(op, Attribute::kMatmulOpB, b.descriptor);
  set(op, Attribute::kMatmulOpC, c.descriptor);
  set(op, Attribute::kMatmulOpDescriptor, how);
  operation(op);
}

Descriptor Graph::pointwise_mode(Pointwise mode, DataType compute, int64_t axis) {
  const Descriptor how = create(Kind::kPointwise);
  set(how, Attribute::kPointwiseMode, Type::kPointwiseMode, 1, &mode);
  set(how, Attribute::kPointwiseComputeType, Type::kDataType, 1, &compute);
  if (axis >= 0) set(how, Attribute::kPointwiseAxis, Type::kInt64, 1, &axis);
  finalize(how);
  return how;
}

void Graph::pointwise_op(Descriptor mode, const Tensor& x, const Tensor* b, const Tensor* t, const Tensor& y) {
  const Descriptor op = create(Kind::kPointwiseOp);
  set(op, Attribute::kPointwiseOpDescriptor, mode);
  set(op, Attribute::kPointwiseOpX, x.descriptor);
  set(op, Attribute::kPointwiseOpY, y.descriptor);
  if (b) set(op, Attribute::kPointwiseOpB, b->descriptor);
  if (t) set(op, Attribute::kPointwiseOpT, t->descriptor);
  operation(op);
}

void Graph::pointwise(Pointwise mode, const Tensor& x, const Tensor& y) {
  pointwise_op(pointwise_mode(mode, DataType::kFloat, -1), x, nullptr, nullptr, y);
}

void Graph::pointwise(Pointwise mode, const Tensor& x, const Tensor& b, const Tensor& y, DataType compute) {
  pointwise_op(pointwise_mode(mode, compute, -1), x, &b, nullptr, y);
}

void Graph::reduce(Reduction operator_, const Tensor& x, const Tensor& y) {
  const DataType compute = DataType::kFloat;
  const Descriptor how = create(Kind::kReduction);
  set(how, Attribute::kReductionOperator, Type::kReductionOperator, 1, &operator_);
  set(how, Attribute::kReductionComputeType, Type::kDataType, 1, &compute);
  finalize(how);
  const Descriptor op = create(Kind::kReductionOp);
  set(op, Attribute::kReductionOpX, x.descriptor);
  set(op, Attribute::kReductionOpY, y.descriptor);
  set(op, Attribute::kReductionOpDescriptor, how);
  operation(op);
}

void Graph::reshape(const Tensor& x, const Tensor& y) {
  const Descriptor op = create(Kind::kReshapeOp);
  set(op, Attribute::kReshapeOpX, x.descriptor);
  set(op, Attribute::kReshapeOpY, y.descriptor);
  operation(op);
}

Tensor Graph::apply(Pointwise mode, const Tensor& x) {
  const Tensor y = inner(DataType::kFloat, x.dims);
  pointwise(mode, x, y);
  return y;
}

Tensor Graph::apply(Pointwise mode, const Tensor& x, const Tensor& b) {
  const Tensor y = inner(DataType::kFloat, x.dims);
  pointwise(mode, x, b, y);
  return y;
}

Tensor Graph::lower_triangle(const Tensor& scores, const Tensor& masked) {
  const Tensor row = inner(DataType::kInt32, scores.dims);
  pointwise_op(pointwise_mode(Pointwise::kIndex, DataType::kFloat, 2), scores, nullptr, nullptr, row);
  const Tensor column = inner(DataType::kInt32, scores.dims);
  pointwise_op(pointwise_mode(Pointwise::kIndex, DataType::kFloat, 3), scores, nullptr, nullptr, column);
  const Tensor seen = inner(DataType::kBoolean, scores.dims);
  pointwise(Pointwise::kGreaterOrEqual, row, column, seen, DataType::kBoolean);
  const Tensor y = inner(DataType::kFloat, scores.dims);
  pointwise_op(pointwise_mode(Pointwise::kSelect, DataType::kFloat, -1), scores, &masked, &seen, y);
  return y;
}

// ---- plan --------------------------------------------------------------------------------------------------

Plan Plan::build(Graph graph, Handle handle, bool repeatable) {
  Plan plan;
  Descriptor whole = graph.create(Kind::kOperationGraph);
  graph.set(whole, Attribute::kGraphHandle, Type::kHandle, 1, &handle);
  const auto operations = static_cast<int64_t>(graph.operations_.size());
  graph.set(whole, Attribute::kGraphOperations, Type::kDescriptor, operations, graph.operations_.data());
  graph.finalize(whole);
  plan.failure_ = graph.failure_;
  if (!plan.failure_.empty()) return plan;
  // The order of preference: what the heuristics find fast, then what works at all.
  if (!plan.choose(handle, whole, Heuristics::kA, repeatable)) plan.choose(handle, whole, Heuristics::kFallback, repeatable);
  if (!plan.plan_ && plan.failure_.empty()) plan.failure_ = "no engine was proposed";
  plan.graph_ = std::move(graph.descriptors_);
  return plan;
}

bool Plan::choose(Handle handle, Descriptor graph, Heuristics mode, bool repeatable) {
  const Api& cudnn = *api();
  const auto failed = [&](const char* what, Status status) {
    failure_ += std::string(failure_.empty() ? "" : "; ") + what + ": " + status_text(status);
    return false;
  };
  Descriptor heuristics = nullptr;
  if (const Status s = descriptors_.create(Kind::kHeuristics, &heuristics)) return failed("heuristics", s);
  if (const Status s = cudnn.set_attribute(heuristics, Attribute::kHeuristicsGraph, Type::kDescriptor, 1, &graph))
    return failed("heuristics' graph", s);
  if (const Status s = cudnn.set_attribute(heuristics, Attribute::kHeuristicsMode, Type::kHeuristicsMode, 1, &mode))
    return failed("heuristics' mode", s);
  if (const Status s = cudnn.finalize(heuristics)) return failed("heuristics", s);

  Descriptor configs[kMaxConfigs];
  for (Descriptor& config : configs)
    if (const Status s = descriptors_.create(Kind::kEngineConfig, &config)) return failed("engine configuration", s);
  int64_t count = 0;
  if (const Status s = cudnn.get_attribute(heuristics, Attribute::kHeuristicsResults, Type::kDescriptor, kMaxConfigs, &count, configs))
    return failed("heuristics' results", s);
  for (int64_t i = 0; i < count && i < kMaxConfigs; i++)
    if (compile(handle, configs[i], repeatable)) return true;
  return false;
}

bool Plan::compile(Handle handle, Descriptor config, bool repeatable) {
  const Api& cudnn = *api();
  int64_t index = -1, got = 0, notes_count = 0;
  int32_t notes[kMaxNotes] = {};
  Descriptor engine = nullptr;
  if (descriptors_.create(Kind::kEngine, &engine) == kSuccess &&
      cudnn.get_attribute(config, Attribute::kEngineConfigEngine, Type::kDescriptor, 1, &got, &engine) == kSuccess) {
    cudnn.get_attribute(engine, Attribute::kEngineIndex, Type::kInt64, 1, &got, &index);
    cudnn.get_attribute(engine, Attribute::kEngineNumericalNote, Type::kNumericalNote, kMaxNotes, &notes_count, notes);
  }
  const std::string name = "engine " + std::to_string(index);
  for (int64_t i = 0; repeatable && i < notes_count && i < kMaxNotes; i++) {
    if (notes[i] != kNoteNondeterministic) continue;
    failure_ += (failure_.empty() ? "" : "; ") + name + ": its results may differ between runs";
    return false;
  }
  Descriptor plan = nullptr;
  Status status = descriptors_.create(Kind::kPlan, &plan);
  if (!status) status = cudnn.set_attribute(plan, Attribute::kPlanHandle, Type::kHandle, 1, &handle);
  if (!status) status = cudnn.set_attribute(plan, Attribute::kPlanEngineConfig, Type::kDescriptor, 1, &config);
  if (!status) status = cudnn.finalize(plan);
  int64_t bytes = 0;
  if (!status) status = cudnn.get_attribute(plan, Attribute::kPlanWorkspaceBytes, Type::kInt64, 1, &got, &bytes);
  if (status) {
    failure_ += (failure_.empty() ? "" : "; ") + name + ": " + status_text(status);
    return false;
  }
  plan_ = plan;
  workspace_bytes_ = static_cast<size_t>(bytes);
  description_ = name + ", workspace " + std::to_string(bytes) + " bytes, numerical notes";
  for (int64_t i = 0; i < notes_count && i < kMaxNotes; i++) description_ += " " + std::to_string(notes[i]);
  return true;
}

Status Plan::run(Handle handle, const Binding* bindings, size_t count, void* workspace) const {
  const Api& cudnn = *api();
  int64_t ids[kMaxBindings];
  const void* pointers[kMaxBindings];
  if (count > kMaxBindings) count = kMaxBindings;
  for (size_t i = 0; i < count; i++) {
    ids[i] = bindings[i].id;
    pointers[i] = bindings[i].pointer;
  }
  Descriptors own;
  Descriptor pack = nullptr;
  Status status = own.create(Kind::kVariantPack, &pack);
  const auto n = static_cast<int64_t>(count);
  if (!status) status = cudnn.set_attribute(pack, Attribute::kPackIds, Type::kInt64, n, ids);
  if (!status) status = cudnn.set_attribute(pack, Attribute::kPackPointers, Type::kPointer, n, pointers);
  if (!status) status = cudnn.set_attribute(pack, Attribute::kPackWorkspace, Type::kPointer, 1, &workspace);
  if (!status) status = cudnn.finalize(pack);
  if (!status) status = cudnn.execute(handle, plan_, pack);
  return status;
}

}  // namespace ds::cudnn
