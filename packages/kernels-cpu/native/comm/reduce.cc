#include "reduce.h"

#include "../registry.h"

namespace ds {
namespace comm {
namespace {
ReduceFn levels[3];  // zero-initialised before any registrar runs
}

void register_reduce(int isa, ReduceFn reduce) { levels[isa] = reduce; }

void reduce(const Reduction& reduction) {
  int level = isa_level();
  while (levels[level] == nullptr) level--;
  levels[level](reduction);
}

bool can_reduce(int32_t dtype, int32_t op) {
  if (op == kMax || op == kMin) return true;
  bool floats = dtype == F32 || dtype == F16 || dtype == BF16;
  return floats || (op == kSum && (dtype == I32 || dtype == I64));
}

}  // namespace comm
}  // namespace ds
