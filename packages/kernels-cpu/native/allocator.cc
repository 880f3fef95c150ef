#include "allocator.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

#include "cpus.h"

namespace ds {

Allocator::Allocator()
    : slots_(1), limit_(size_t(env_count("DEEPSPEED_TS_CPU_MEMORY_LIMIT", (long long)available_memory()))) {}

int Allocator::allocate(size_t bytes, bool shared, void (*idle)(), std::string* reason) {
  const size_t size = Heap::rounded(bytes);
  Heap& home = heap(shared, size);
  Block* block = home.take(size);
  if (!block && grow(home, size, shared, reason)) block = home.take(size);
  if (!block) {
    idle();
    trim();
    if (grow(home, size, shared, reason)) block = home.take(size);
    if (!block) return 0;
  }
  int index;
  if (!unused_.empty()) {
    index = unused_.back();
    unused_.pop_back();
  } else {
    index = int(slots_.size());
    if (index == kMaxBuffers) {
      home.give(block);
      *reason = "there are 1048575 buffers alive; free some, or put many tensors into one buffer";
      return 0;
    }
    slots_.push_back({});
  }
  Slot& slot = slots_[size_t(index)];
  slot.buffer = {block->data, bytes};
  slot.block = block;
  slot.shared = shared;
  counters_.live += bytes;
  counters_.peak = std::max(counters_.peak, counters_.live);
  return int(slot.generation << kIndexBits) | index;
}

bool Allocator::free(int handle) {
  Slot* s = slot(handle);
  if (!s) return false;
  heap(s->shared, s->block->bytes).give(s->block);
  counters_.live -= s->buffer.bytes;
  s->block = nullptr;
  s->generation = (s->generation + 1) % kGenerations;
  unused_.push_back(handle & (kMaxBuffers - 1));
  return true;
}

const Buffer* Allocator::find(int handle) const {
  const Slot* s = slot(handle);
  return s ? &s->buffer : nullptr;
}

Allocator::Slot* Allocator::slot(int handle) const {
  const size_t index = size_t(handle & (kMaxBuffers - 1));
  if (handle <= 0 || index >= slots_.size()) return nullptr;
  const Slot& s = slots_[index];
  return s.block && s.generation == uint32_t(handle) >> kIndexBits ? const_cast<Slot*>(&s) : nullptr;
}

// A little more than is asked, so that later blocks find room; exactly what is asked where the limit allows no more.
bool Allocator::grow(Heap& home, size_t bytes, bool shared, std::string* reason) {
  const bool small = bytes <= kSmallBytes;
  const size_t room = limit_ > counters_.reserved ? limit_ - counters_.reserved : 0;
  size_t wanted = std::max((bytes + kArenaUnit - 1) / kArenaUnit * kArenaUnit, small ? kSmallArena : kLargeArena);
  if (wanted > room) wanted = (bytes + 4095) / 4096 * 4096;
  if (wanted > room || bytes > limit_) {
    *reason = std::to_string(counters_.reserved) + " bytes are reserved of a limit of " + std::to_string(limit_) +
              " (DEEPSPEED_TS_CPU_MEMORY_LIMIT, else the memory of the machine or container). Use a smaller batch, recompute "
              "activations, or shard over more ranks";
    return false;
  }
  Arena* arena = arena_map(wanted, shared, small);
  if (!arena) {
    *reason = std::string("The system gave no memory: ") + std::strerror(errno);
    return false;
  }
  counters_.reserved += wanted;
  home.add(arena);
  return true;
}

void Allocator::trim() {
  for (auto& pair : heaps_)
    for (Heap& heap : pair) counters_.reserved -= heap.release_empty();
}

void Allocator::clear() {
  for (size_t index = 1; index < slots_.size(); index++)
    if (slots_[index].block) free(int(slots_[index].generation << kIndexBits) | int(index));
  trim();
}

// Never destroyed: at process.exit() kernels may still run in its memory.
Allocator& allocator() {
  static Allocator& instance = *new Allocator;
  return instance;
}

}  // namespace ds
