#include "heap.h"

namespace ds {
namespace {

constexpr size_t kUnit = 512;  // what cudaMalloc aligns to at least, and more than any kernel asks for

}  // namespace

void Heap::insert_free(Offset at, size_t bytes) {
  free_[at] = bytes;
  by_size_.insert({bytes, at});
}

void Heap::erase_free(Offset at, size_t bytes) {
  free_.erase(at);
  by_size_.erase({bytes, at});
}

void* Heap::take(size_t bytes, std::string* reason) {
  const size_t wanted = bytes == 0 ? kUnit : (bytes + kUnit - 1) / kUnit * kUnit;
  auto fit = by_size_.lower_bound({wanted, 0});
  if (fit == by_size_.end()) {
    // The free block at the end, if there is one, only needs the rest.
    const size_t end = span_.bytes();
    const auto last = free_.empty() ? free_.end() : std::prev(free_.end());
    const bool touches = last != free_.end() && last->first + last->second == end;
    const size_t grown = span_.grow(wanted - (touches ? last->second : 0), reason);
    if (grown == 0) return nullptr;
    const Offset at = touches ? last->first : end;
    const size_t size = grown + (touches ? last->second : 0);
    if (touches) erase_free(last->first, last->second);
    insert_free(at, size);
    fit = by_size_.find({size, at});
  }
  const auto [size, at] = *fit;
  erase_free(at, size);
  if (size > wanted) insert_free(at + wanted, size - wanted);
  taken_[at] = wanted;
  return span_.base() + at;
}

void Heap::give(void* data) {
  Offset at = Offset(static_cast<char*>(data) - span_.base());
  const auto taken = taken_.find(at);
  size_t size = taken->second;
  taken_.erase(taken);
  const auto next = free_.lower_bound(at);
  if (next != free_.end() && next->first == at + size) {
    const size_t more = next->second;
    erase_free(at + size, more);
    size += more;
  }
  const auto after = free_.lower_bound(at);
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == at) {
      const auto [start, less] = *before;
      erase_free(start, less);
      at = start;
      size += less;
    }
  }
  insert_free(at, size);
}

void Heap::trim() {
  if (free_.empty()) return;
  const auto [at, size] = *std::prev(free_.end());
  if (at + size != span_.bytes()) return;
  span_.shrink(at);
  erase_free(at, size);
  if (span_.bytes() > at) insert_free(at, span_.bytes() - at);
}

}  // namespace ds
