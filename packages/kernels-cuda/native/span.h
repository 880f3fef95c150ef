// A range of device addresses that grows at its end: one reservation of addresses, backed by physical memory as far as it is
// needed (CUDA's virtual memory API). Because the heap in it is a single range, a large tensor never fails for want of a
// contiguous piece while there is memory enough (PyTorch calls the same idea expandable segments).
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace ds {

class Span {
 public:
  // Reserves addresses for up to `most` bytes, growing by multiples of `step`.
  bool reserve(size_t most, size_t step, std::string* reason);
  // Backs `bytes` more at the end, rounded up to the step; gives how many, 0 with `reason` when the device has none left.
  size_t grow(size_t bytes, std::string* reason);
  // Gives back physical memory at the end beyond the first `keep` bytes. Only while no queued work uses it.
  void shrink(size_t keep);

  char* base() const { return reinterpret_cast<char*>(base_); }
  size_t bytes() const { return bytes_; }

 private:
  struct Piece {
    unsigned long long handle;
    size_t bytes;
  };
  unsigned long long base_ = 0;
  size_t most_ = 0, step_ = 0, bytes_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace ds
