// Which kernels there are, and which of their instruction-set levels this machine runs.
#pragma once
#include "kernel.h"

namespace ds {

// The level in use: the machine's, or the lower one that DEEPSPEED_TS_CPU_ISA names.
int isa_level();
const char* isa_name(int level);

// Kernels are numbered from 0 in registration order; -1: there is no kernel of that name.
int kernel_count();
int kernel_id(const char* name);
const char* kernel_name(int id);

struct KernelChoice {
  Kernel run;
  int isa;
  uint32_t dtypes;
};
// The kernel's highest level that is not above isa_level().
KernelChoice kernel_choice(int id);

}  // namespace ds
