#include "allocator.h"

#include <cstdlib>
#include <cstring>

#include "device.h"

namespace ds {

Allocator& allocator() {
  static Allocator& instance = *new Allocator;  // outlives every thread that could still look a buffer up
  return instance;
}

bool Allocator::open(std::string* reason) {
  const char* kind = std::getenv("DEEPSPEED_TS_CUDA_ALLOCATOR");
  const char* limit = std::getenv("DEEPSPEED_TS_CUDA_MEMORY_LIMIT");
  plain_ = kind && std::strcmp(kind, "plain") == 0;
  limit_ = limit ? size_t(std::strtoull(limit, nullptr, 10)) : device_properties().memory_bytes;
  const size_t most = device_properties().memory_bytes;
  return plain_ || (heaps_[0].open(most, size_t(2) << 20, reason) && heaps_[1].open(most, size_t(32) << 20, reason));
}

MemoryCounters Allocator::counters() const {
  MemoryCounters counters = counters_;
  counters.reserved = heaps_[0].reserved() + heaps_[1].reserved() + plain_bytes_;
  return counters;
}

void* Allocator::take(size_t bytes, std::string* reason) {
  const size_t reserved = counters().reserved;
  if (bytes > limit_ || (reserved > limit_ - bytes && (plain_ || heap(bytes).largest_free() < bytes))) {
    *reason = "that is over the limit of " + std::to_string(limit_) + " bytes";
    return nullptr;
  }
  if (!plain_) return heap(bytes).take(bytes, reason);
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes == 0 ? 1 : bytes);
  if (error == cudaSuccess) return plain_bytes_ += bytes, data;
  cudaGetLastError();
  *reason = cudaGetErrorString(error);
  return nullptr;
}

void* Allocator::take_host(size_t bytes) {
  constexpr size_t kPage = 4096;
  const size_t size = bytes == 0 ? kPage : (bytes + kPage - 1) / kPage * kPage;
  const auto fit = host_unused_.lower_bound(size);
  if (fit != host_unused_.end() && fit->first <= size + size / 4) {
    void* data = fit->second;
    host_unused_.erase(fit);
    return data;
  }
  void* data = nullptr;
  if (cudaHostAlloc(&data, size, cudaHostAllocDefault) != cudaSuccess) return cudaGetLastError(), nullptr;
  host_sizes_[data] = size;
  counters_.host += size;
  return data;
}

void Allocator::give_host(void* data) { host_unused_.emplace(host_sizes_.at(data), data); }

void Allocator::trim_host() {
  for (const auto& [size, data] : host_unused_) {
    cudaFreeHost(data);
    host_sizes_.erase(data);
    counters_.host -= size;
  }
  host_unused_.clear();
}

int Allocator::allocate(size_t bytes, bool host, void (*idle)(), std::string* reason) {
  const auto attempt = [&] { return host ? take_host(bytes) : take(bytes, reason); };
  void* data = attempt();
  if (!data) {
    idle();
    trim();
    data = attempt();
  }
  if (!data && host) {
    *reason = "the host has no memory left to pin; " + std::to_string(counters_.host) + " bytes are pinned for buffers";
    return 0;
  }
  if (!data) {
    size_t free_bytes = 0, total_bytes = 0;
    device_memory(&free_bytes, &total_bytes);
    const MemoryCounters now = counters();
    *reason += "; " + std::to_string(now.reserved) + " bytes are reserved (" + std::to_string(now.reserved - now.live) +
               " of them unused), the device has " + std::to_string(free_bytes) + " of " + std::to_string(total_bytes) + " bytes free";
    return 0;
  }
  int index;
  if (unused_.empty()) {
    if (slots_.size() == size_t(kMaxBuffers)) {
      if (host) give_host(data);
      return *reason = "more than a million buffers are alive", 0;
    }
    index = int(slots_.size());
    slots_.push_back({});
  } else {
    index = unused_.back();
    unused_.pop_back();
  }
  Slot& slot = slots_[size_t(index)];
  slot.buffer = {data, bytes, host};
  slot.used = true;
  if (!host) counters_.live += bytes;
  if (counters_.live > counters_.peak) counters_.peak = counters_.live;
  return int(slot.generation << kIndexBits) + index + 1;
}

Allocator::Slot* Allocator::slot(int handle) const {
  const int index = (handle - 1) & (kMaxBuffers - 1);
  if (handle <= 0 || size_t(index) >= slots_.size()) return nullptr;
  const Slot& slot = slots_[size_t(index)];
  const bool same = slot.used && int(slot.generation) == (handle - 1) >> kIndexBits;
  return same ? const_cast<Slot*>(&slot) : nullptr;
}

bool Allocator::free(int handle, void (*idle)()) {
  Slot* found = slot(handle);
  if (!found) return false;
  const Buffer buffer = found->buffer;
  if (buffer.host) {
    give_host(buffer.data);
  } else if (plain_) {
    idle();
    cudaFree(buffer.data);
    plain_bytes_ -= buffer.bytes;
  } else {
    heap(buffer.bytes).give(buffer.data);
  }
  if (!buffer.host) counters_.live -= buffer.bytes;
  found->used = false;
  found->generation = (found->generation + 1) % kGenerations;
  unused_.push_back((handle - 1) & (kMaxBuffers - 1));
  return true;
}

const Buffer* Allocator::find(int handle) const {
  const Slot* found = slot(handle);
  return found ? &found->buffer : nullptr;
}

void Allocator::trim() {
  for (Heap& heap : heaps_) heap.trim();
  trim_host();
}

}  // namespace ds
