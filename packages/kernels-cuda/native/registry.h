// Kernels by name, as their files registered them.
#pragma once
#include "kernel.h"

namespace ds {

struct KernelEntry {
  const char* name;
  Kernel run;
  uint32_t dtypes;
};

int kernel_count();
// -1: no such kernel.
int kernel_id(const char* name);
const KernelEntry& kernel_entry(int id);

}  // namespace ds
