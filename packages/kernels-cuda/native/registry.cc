#include "registry.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ds {
namespace {

constexpr int kMaxKernels = 256;

// Plain zero-initialised data: registrars run before any constructor of this file could.
KernelEntry entries[kMaxKernels];
int entry_count;

}  // namespace

int kernel_count() { return entry_count; }

int kernel_id(const char* name) {
  for (int id = 0; id < entry_count; id++)
    if (std::strcmp(entries[id].name, name) == 0) return id;
  return -1;
}

const KernelEntry& kernel_entry(int id) { return entries[id]; }

void register_kernel(const char* name, uint32_t dtypes, Kernel kernel) {
  if (entry_count == kMaxKernels) std::abort();  // raise kMaxKernels
  entries[entry_count++] = {name, kernel, dtypes};
}

const char* error_text(const char* format, ...) {
  static thread_local char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

const char* cuda_error_text(const char* what, cudaError_t error) {
  return error_text("%s failed: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

const char* const kNoWorkspace = "the device has no memory left for workspace: use a smaller micro-batch or recompute activations";

}  // namespace ds
