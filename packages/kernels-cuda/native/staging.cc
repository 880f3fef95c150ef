#include "staging.h"

#include <cuda_runtime_api.h>

namespace ds {

Staging& staging() {
  static Staging& instance = *new Staging;
  return instance;
}

void* Staging::take(size_t bytes) {
  size_t size = 4096;
  while (size < bytes) size *= 2;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    // Of this size or larger: a large chunk that lies idle serves a small copy too.
    for (auto fit = unused_.lower_bound(size); fit != unused_.end() && fit->first <= size * 8; ++fit) {
      if (fit->second.empty()) continue;
      void* chunk = fit->second.back();
      fit->second.pop_back();
      return chunk;
    }
    if (total_ + size <= kMost) {
      void* chunk = nullptr;
      if (cudaHostAlloc(&chunk, size, cudaHostAllocDefault) == cudaSuccess) {
        total_ += size;
        sizes_[chunk] = size;
        return chunk;
      }
      cudaGetLastError();
      if (total_ == 0) return nullptr;
    }
    // Many sizes may fill the limit with chunks that lie idle: those go first.
    bool freed = false;
    for (auto& [held, chunks] : unused_) {
      for (void* chunk : chunks) {
        cudaFreeHost(chunk);
        sizes_.erase(chunk);
        total_ -= held;
        freed = true;
      }
      chunks.clear();
    }
    if (!freed) returned_.wait(lock);
  }
}

void Staging::give(void* chunk) {
  const std::lock_guard<std::mutex> lock(mutex_);
  unused_[sizes_.at(chunk)].push_back(chunk);
  returned_.notify_one();
}

}  // namespace ds
