// The device's memory by integer handle. Reuse is in stream order: a freed block may serve the next allocation at once, because
// the work that still uses it runs before any that is queued later. JavaScript's thread alone calls all of this.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "heap.h"

namespace ds {

struct Buffer {
  void* data;
  size_t bytes;  // as asked for
  bool host;     // page-locked memory of the host, which the device reaches by the same address
};

struct MemoryCounters {
  size_t live;      // bytes asked for by buffers that are alive
  size_t reserved;  // bytes taken from the device, the cache included
  size_t peak;      // highest `live` since the start or reset_peak()
  size_t host;      // bytes that host buffers have pinned, the cache included; in none of the others
};

class Allocator {
 public:
  // DEEPSPEED_TS_CUDA_MEMORY_LIMIT in bytes bounds `reserved`. DEEPSPEED_TS_CUDA_ALLOCATOR=plain makes every buffer a cudaMalloc of
  // its own, slowly, so that compute-sanitizer sees each one's end.
  bool open(std::string* reason);
  // A handle > 0, or 0 with `reason` filled in; `host` for a buffer in host memory. `idle` must return only when no queued work is left.
  int allocate(size_t bytes, bool host, void (*idle)(), std::string* reason);
  bool free(int handle, void (*idle)());
  // nullptr: no such buffer (never allocated, or freed: handles carry a generation).
  const Buffer* find(int handle) const;

  MemoryCounters counters() const;
  void reset_peak() { counters_.peak = counters_.live; }
  // Gives unused memory back. Only while no queued work is left.
  void trim();

 private:
  struct Slot {
    Buffer buffer;
    uint32_t generation;
    bool used;
  };
  // Small blocks have a heap of their own: one long-lived scalar would keep a hole in the way of large ones.
  Heap& heap(size_t bytes) { return heaps_[bytes <= kSmall ? 0 : 1]; }
  void* take(size_t bytes, std::string* reason);
  void* take_host(size_t bytes);
  void give_host(void* data);
  void trim_host();
  Slot* slot(int handle) const;

  static constexpr size_t kSmall = size_t(1) << 20;
  static constexpr int kIndexBits = 20, kMaxBuffers = 1 << kIndexBits, kGenerations = 1 << 10;

  Heap heaps_[2];
  std::vector<Slot> slots_;
  std::vector<int> unused_;
  // Pinning pages takes longer than a copy to them: blocks are kept. Like the device's, a freed one is used again in stream order.
  std::multimap<size_t, void*> host_unused_;  // by size
  std::map<void*, size_t> host_sizes_;
  MemoryCounters counters_{};
  size_t limit_ = 0, plain_bytes_ = 0;
  bool plain_ = false;
};

Allocator& allocator();

}  // namespace ds
