#pragma once
#include <cstddef>

namespace ds {

// CPUs that this process may run on: its affinity mask, cut by the cgroup's CPU quota (a container's `--cpus`).
int available_cpus();

// Bytes of memory that this process may use: the machine's, cut by the cgroup's limit.
size_t available_memory();

// A count from the environment, or `fallback` where the variable is absent, not a number, or below 1.
long long env_count(const char* name, long long fallback);

}  // namespace ds
