// The device's memory by integer handle. Reuse is in stream order: a freed block may serve the next allocation at once, because
// the commands that still use it run before any command that is queued later. One thread (JavaScript's) calls all of this.
#pragma once
#include <string>
#include <vector>

#include "heap.h"

namespace ds {

struct Buffer {
  void* data;
  size_t bytes;  // as asked for
};

struct MemoryCounters {
  size_t live;      // bytes asked for by buffers that are alive
  size_t reserved;  // bytes of arenas, the cache included
  size_t peak;      // highest `live` since the start or reset_peak()
};

class Allocator {
 public:
  // DEEPSPEED_TS_CPU_MEMORY_LIMIT in bytes, else what the machine or the container has, bounds `reserved`.
  Allocator();

  // A handle > 0, or 0 with `reason` filled in. `idle` must return only when no queued command is left: it is called before
  // cached arenas go back to the system, which happens when memory runs out.
  int allocate(size_t bytes, bool shared, void (*idle)(), std::string* reason);
  // false: no such buffer.
  bool free(int handle);
  // nullptr: no such buffer (never allocated, or freed: handles carry a generation).
  const Buffer* find(int handle) const;

  MemoryCounters counters() const { return counters_; }
  void reset_peak() { counters_.peak = counters_.live; }
  // Gives empty arenas back. Only while no queued command is left.
  void trim();
  // Frees every buffer. Only while no queued command is left.
  void clear();

 private:
  struct Slot {
    Buffer buffer;
    Block* block;  // nullptr: unused
    uint32_t generation;
    bool shared;
  };
  // Small blocks have arenas of their own: one long-lived scalar would keep a whole large arena from going back.
  Heap& heap(bool shared, size_t bytes) { return heaps_[shared][bytes <= kSmallBytes]; }
  bool grow(Heap& heap, size_t bytes, bool shared, std::string* reason);
  Slot* slot(int handle) const;

  static constexpr size_t kSmallBytes = size_t(256) << 10, kSmallArena = size_t(4) << 20, kLargeArena = size_t(32) << 20;
  static constexpr int kIndexBits = 20, kMaxBuffers = 1 << kIndexBits, kGenerations = 1 << 10;

  Heap heaps_[2][2];
  std::vector<Slot> slots_;
  std::vector<int> unused_;
  MemoryCounters counters_{};
  size_t limit_;
};

Allocator& allocator();

}  // namespace ds
