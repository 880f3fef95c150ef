// A bounded queue of variable-size commands between one producer and one consumer. Each is contiguous, so it is written in place
// and run in place; where the end of the buffer is too near, a filler covers it.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace ds {

class Ring {
 public:
  struct Header {
    uint32_t bytes;  // with this header; a multiple of kAlignment
    uint32_t kind;
  };
  static constexpr uint32_t kFiller = ~0u;
  static constexpr uint64_t kBytes = uint64_t(1) << 20, kAlignment = 16;

  // Producer. nullptr: no room now. The command becomes visible with push(), and is forgotten without it.
  void* prepare(uint32_t kind, uint64_t payload) {
    const uint64_t bytes = (sizeof(Header) + payload + kAlignment - 1) / kAlignment * kAlignment;
    uint64_t tail = tail_.load(std::memory_order_relaxed);
    const uint64_t left = kBytes - tail % kBytes;
    const uint64_t filler = left < bytes ? left : 0;
    if (tail + filler + bytes - head_.load(std::memory_order_acquire) > kBytes) return nullptr;
    if (filler) {
      *at(tail) = {uint32_t(filler), kFiller};
      tail += filler;
    }
    *at(tail) = {uint32_t(bytes), kind};
    pending_ = tail + bytes;
    return at(tail) + 1;
  }
  void push() { tail_.store(pending_, std::memory_order_seq_cst); }

  // Consumer. The oldest command, or nullptr.
  const Header* front() {
    for (;;) {
      const uint64_t head = head_.load(std::memory_order_relaxed);
      if (head == tail_.load(std::memory_order_seq_cst)) return nullptr;
      if (at(head)->kind != kFiller) return at(head);
      pop();
    }
  }
  void pop() {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    head_.store(head + at(head)->bytes, std::memory_order_release);
  }

 private:
  Header* at(uint64_t position) { return reinterpret_cast<Header*>(buffer_ + position % kBytes); }

  char* buffer_ = static_cast<char*>(std::aligned_alloc(64, kBytes));
  uint64_t pending_ = 0;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
};

}  // namespace ds
