// Pinned host memory in chunks, through which bytes travel to and from the device. Chunks are kept and used again.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace ds {

class Staging {
 public:
  static constexpr size_t kChunk = size_t(16) << 20;  // larger copies go piece by piece

  // A chunk for `bytes` <= kChunk; waits while too much is on its way. nullptr: the host has no memory to pin.
  void* take(size_t bytes);
  void give(void* chunk);

 private:
  static constexpr size_t kMost = size_t(256) << 20;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::map<size_t, std::vector<void*>> unused_;  // by size, a power of two
  std::map<void*, size_t> sizes_;
  size_t total_ = 0;
};

Staging& staging();

}  // namespace ds
