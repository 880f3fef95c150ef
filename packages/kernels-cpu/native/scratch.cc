#include "scratch.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>

#include "kernel.h"
#include "pool.h"

namespace ds {
namespace {

struct Block {
  void* data;
  size_t bytes;
};

// Row 0 is worker -1, the block that all workers of one call share. Each row is touched by its own worker only.
Block blocks[kMaxThreads + 1][kScratchSlots];
std::atomic<size_t> total{0};

constexpr size_t kHugePage = size_t(2) << 20;

void release(Block& block) {
  free(block.data);
  total -= block.bytes;
  block = {};
}

}  // namespace

void* scratch(int worker, int slot, size_t bytes) {
  Block& block = blocks[worker + 1][slot];
  if (block.bytes >= bytes && block.data) return block.data;
  release(block);
  const size_t unit = bytes >= kHugePage ? kHugePage : 4096;
  const size_t rounded = (bytes + unit - 1) / unit * unit + (bytes == 0 ? unit : 0);
  if (posix_memalign(&block.data, unit, rounded) != 0) {
    block.data = nullptr;
    return nullptr;
  }
  if (unit == kHugePage) madvise(block.data, rounded, MADV_HUGEPAGE);
  block.bytes = rounded;
  total += rounded;
  return block.data;
}

size_t scratch_bytes() { return total; }

void scratch_release() {
  for (auto& row : blocks)
    for (Block& block : row) release(block);
}

}  // namespace ds
