#include "registry.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ds {
namespace {

constexpr int kMaxKernels = 256;
constexpr int kLevels = 3;
const char* const kLevelNames[kLevels] = {"baseline", "avx2", "avx512"};

struct Entry {
  const char* name;
  Kernel run[kLevels];
  uint32_t dtypes[kLevels];
};

// Plain zero-initialised data: registrars run before any constructor of this file could.
Entry entries[kMaxKernels];
int entry_count;

int machine_level() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx2 ? (avx512 ? 2 : 1) : 0;
#else
  return 0;
#endif
}

int choose_level() {
  const int machine = machine_level();
  const char* wanted = std::getenv("DEEPSPEED_TS_CPU_ISA");
  for (int level = 0; wanted && level < machine; level++)
    if (std::strcmp(wanted, kLevelNames[level]) == 0) return level;
  return machine;
}

}  // namespace

int isa_level() {
  static const int level = choose_level();
  return level;
}

const char* isa_name(int level) { return kLevelNames[level]; }

int kernel_count() { return entry_count; }

int kernel_id(const char* name) {
  for (int id = 0; id < entry_count; id++)
    if (std::strcmp(entries[id].name, name) == 0) return kernel_choice(id).run ? id : -1;
  return -1;
}

const char* kernel_name(int id) { return entries[id].name; }

KernelChoice kernel_choice(int id) {
  const Entry& entry = entries[id];
  for (int level = isa_level(); level >= 0; level--)
    if (entry.run[level]) return {entry.run[level], level, entry.dtypes[level]};
  return {nullptr, -1, 0};
}

void register_kernel(const char* name, int isa, uint32_t dtypes, Kernel kernel) {
  int id = 0;
  while (id < entry_count && std::strcmp(entries[id].name, name) != 0) id++;
  if (id == kMaxKernels) std::abort();  // raise kMaxKernels
  if (id == entry_count) entries[entry_count++].name = name;
  entries[id].run[isa] = kernel;
  entries[id].dtypes[isa] = dtypes;
}

const char* error_text(const char* format, ...) {
  static thread_local char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

}  // namespace ds
