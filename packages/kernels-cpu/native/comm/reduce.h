// Sums (or maxima, ...) of the same range of every rank, in rank order, in f32 for floats, rounded once at the end.
#pragma once
#include "../kernel.h"

namespace ds {
namespace comm {

enum ReduceOp : int32_t { kSum = 0, kMean = 1, kMax = 2, kMin = 3 };

struct Reduction {
  const void* const* sources;  // one for each rank, in rank order
  int n_sources;
  void* const* targets;  // every target receives the result; one of them may be one of the sources
  int n_targets;
  int64_t count;
  int32_t dtype;
  int32_t op;
};

using ReduceFn = void (*)(const Reduction&);

// Called by the copy of ops/comm_reduce.cc for each instruction set.
void register_reduce(int isa, ReduceFn reduce);
void reduce(const Reduction& reduction);
// Floats and integers take sum, max and min; mean is for floats; u8, i8 and bool take only max and min.
bool can_reduce(int32_t dtype, int32_t op);

}  // namespace comm
}  // namespace ds
