#include "cpus.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>

namespace ds {
namespace {

// Calls `visit` with the first line of `file` in this process's version-2 cgroup and in each of its ancestors: the
// tightest limit holds.
void each_cgroup(const char* file, const std::function<void(const std::string&)>& visit) {
  std::ifstream membership("/proc/self/cgroup");
  std::string path, line;
  while (std::getline(membership, line))
    if (line.rfind("0::", 0) == 0) path = line.substr(3);
  for (;;) {
    std::ifstream limit("/sys/fs/cgroup" + path + "/" + file);
    if (std::getline(limit, line)) visit(line);
    if (path.empty() || path == "/") return;
    path.resize(path.rfind('/'));
  }
}

long long number_in(const char* path) {
  std::ifstream file(path);
  long long value = -1;
  file >> value;
  return value;
}

int quota_cpus() {
  double cpus = 1e9;
  each_cgroup("cpu.max", [&](const std::string& line) {
    double quota, period;
    if (std::sscanf(line.c_str(), "%lf %lf", &quota, &period) == 2 && period > 0) cpus = std::min(cpus, quota / period);
  });
  const long long quota = number_in("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");  // version 1
  const long long period = number_in("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota > 0 && period > 0) cpus = std::min(cpus, double(quota) / double(period));
  return std::max(1, int(std::ceil(cpus - 1e-6)));
}

}  // namespace

int available_cpus() {
  int allowed = int(sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) allowed = CPU_COUNT(&set);
  return std::max(1, std::min(allowed, quota_cpus()));
}

size_t available_memory() {
  size_t bytes = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGESIZE));
  each_cgroup("memory.max", [&](const std::string& line) {
    if (line != "max") bytes = std::min(bytes, size_t(std::strtoull(line.c_str(), nullptr, 10)));
  });
  const long long v1 = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  if (v1 > 0) bytes = std::min(bytes, size_t(v1));
  return bytes;
}

long long env_count(const char* name, long long fallback) {
  const char* text = std::getenv(name);
  if (!text) return fallback;
  char* end;
  const long long value = std::strtoll(text, &end, 10);
  return end != text && *end == '\0' && value >= 1 ? value : fallback;
}

}  // namespace ds
