// Best fit over one growing range of addresses. Blocks are multiples of 512 bytes; free neighbours merge at once.
#pragma once
#include <map>
#include <set>
#include <unordered_map>

#include "span.h"

namespace ds {

class Heap {
 public:
  bool open(size_t most, size_t step, std::string* reason) { return span_.reserve(most, step, reason); }

  // nullptr with `reason`: the device has no more.
  void* take(size_t bytes, std::string* reason);
  void give(void* data);
  // Gives unused memory at the end back to the device. Only while no queued work is left.
  void trim();
  size_t reserved() const { return span_.bytes(); }
  // The largest piece that take() could serve without growing.
  size_t largest_free() const { return by_size_.empty() ? 0 : by_size_.rbegin()->first; }

 private:
  using Offset = size_t;
  void insert_free(Offset at, size_t bytes);
  void erase_free(Offset at, size_t bytes);

  Span span_;
  std::map<Offset, size_t> free_;                // by address
  std::set<std::pair<size_t, Offset>> by_size_;  // the same, by size and then address: the same requests get the same addresses
  std::unordered_map<Offset, size_t> taken_;
};

}  // namespace ds
