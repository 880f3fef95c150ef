// A graph of cuDNN operations on four-dimensional tensors, and the plan that runs it. Nothing here knows of attention.
#pragma once
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "cudnn.h"

namespace ds::cudnn {

using Dims = std::array<int64_t, 4>;

struct Tensor {
  Descriptor descriptor = nullptr;
  Dims dims{};
  Dims strides{};  // elements
};

constexpr Dims packed(const Dims& d) { return {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1}; }

// Descriptors, destroyed together. cuDNN refers from plan to configuration to graph to operations: all live as long as the plan.
class Descriptors {
 public:
  Descriptors() = default;
  Descriptors(Descriptors&& other) noexcept : owned_(std::exchange(other.owned_, {})) {}
  Descriptors& operator=(Descriptors&& other) noexcept {
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~Descriptors();
  Status create(Kind kind, Descriptor* out);

 private:
  std::vector<Descriptor> owned_;
};

// Operations are added in the order of the computation. The first call that fails is kept (failure()); later ones do nothing.
// Results without a name are virtual: they never reach memory, cuDNN fuses over them. They are f32 unless said otherwise, and all
// arithmetic is f32.
class Graph {
 public:
  // A tensor in device memory, which Plan::run() binds by `id` (from 1 to 99), aligned to 16 bytes.
  Tensor memory(int64_t id, DataType type, const Dims& dims, const Dims& strides);
  // An f32 of the host, read when the plan is run.
  Tensor scalar(int64_t id);
  Tensor inner(DataType type, const Dims& dims, const Dims& strides);
  Tensor inner(DataType type, const Dims& dims) { return inner(type, dims, packed(dims)); }

  // c [.., m, n] = a [.., m, k] b [.., k, n]; heads of b may be fewer (each serves a group of a's).
  void matmul(const Tensor& a, const Tensor& b, const Tensor& c);
  void pointwise(Pointwise mode, const Tensor& x, const Tensor& y);
  void pointwise(Pointwise mode, const Tensor& x, const Tensor& b, const Tensor& y, DataType compute = DataType::kFloat);
  void reduce(Reduction operation, const Tensor& x, const Tensor& y);  // over the dimensions that y has 1 (or fewer heads) in
  void reshape(const Tensor& x, const Tensor& y);

  // The same with a new inner tensor of x's shape as the result.
  Tensor apply(Pointwise mode, const Tensor& x);
  Tensor apply(Pointwise mode, const Tensor& x, const Tensor& b);
  // scores where row >= column (dimensions 2 and 3), else `masked`.
  Tensor lower_triangle(const Tensor& scores, const Tensor& masked);

  const std::string& failure() const { return failure_; }

 private:
  friend class Plan;
  Tensor tensor(int64_t id, DataType type, const Dims& dims, const Dims& strides, bool is_virtual, bool by_value);
  Descriptor create(Kind kind);
  Descriptor pointwise_mode(Pointwise mode, DataType compute, int64_t axis);
  void pointwise_op(Descriptor mode, const Tensor& x, const Tensor* b, const Tensor* t, const Tensor& y);
  void set(Descriptor descriptor, Attribute attribute, Type type, int64_t count, const void* elements);
  void set(Descriptor descriptor, Attribute attribute, Descriptor value);
  bool finalize(Descriptor descriptor);
  void operation(Descriptor descriptor);
  void failed(const char* what, int code, Status status);

  Descriptors descriptors_;
  std::vector<Descriptor> operations_;
  int64_t next_inner_ = 100;
  std::string failure_;
};

struct Binding {
  int64_t id;
  const void* pointer;  // device memory, or a scalar's host memory
};

class Plan {
 public:
  // The first engine that cuDNN's heuristics propose and that compiles. `repeatable` passes over engines that say their results
  // may differ between runs. On failure ready() is false and failure() says why.
  static Plan build(Graph graph, Handle handle, bool repeatable);

  bool ready() const { return plan_ != nullptr; }
  const std::string& failure() const { return failure_; }
  const std::string& description() const { return description_; }
  size_t workspace_bytes() const { return workspace_bytes_; }
  // Queues the work on the handle's stream.
  Status run(Handle handle, const Binding* bindings, size_t count, void* workspace) const;

 private:
  bool choose(Handle handle, Descriptor graph, Heuristics mode, bool repeatable);
  bool compile(Handle handle, Descriptor config, bool repeatable);

  Descriptors descriptors_;
  Descriptors graph_;
  Descriptor plan_ = nullptr;
  size_t workspace_bytes_ = 0;
  std::string failure_, description_;
};

}  // namespace ds::cudnn
