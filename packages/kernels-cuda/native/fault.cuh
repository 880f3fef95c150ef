// Reports bad data found by a kernel; see kernel.h.
#pragma once
#include "kernel.h"

namespace ds {

// Only the first fault is kept.
__device__ __forceinline__ void device_fault(Fault* slot, FaultCode code, long long a, long long b = 0, long long c = 0) {
  if (atomicCAS_system(&slot->code, int(kNoFault), -1) != int(kNoFault)) return;
  slot->a = a, slot->b = b, slot->c = c;
  __threadfence_system();
  atomicExch_system(&slot->code, int(code));
}

}  // namespace ds
