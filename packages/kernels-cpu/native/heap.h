// Blocks inside arenas: two-level segregated free lists (Masmano et al., "TLSF", ECRTS 2004). Finding, splitting and merging
// take constant time. Block headers lie outside the arenas: those are shared with peers and aligned for vectors.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "arena.h"

namespace ds {

struct Block {
  char* data;
  size_t bytes;  // a multiple of kAlignment
  Arena* arena;
  Block *before, *after;      // neighbours in the arena
  Block *previous, *next;     // in the free list
  bool free;
};

class Heap {
 public:
  static constexpr size_t kAlignment = 64;
  static size_t rounded(size_t bytes) { return bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  // nullptr if no free block is large enough. `bytes` is rounded().
  Block* take(size_t bytes);
  void give(Block* block);
  void add(Arena* arena);
  // Unmaps the arenas that are wholly free; returns their bytes.
  size_t release_empty();

 private:
  static constexpr int kColumnBits = 5, kColumns = 1 << kColumnBits, kRows = 44;
  struct Class {
    int row, column;
  };
  static Class class_of(size_t bytes);
  Block* best_in(Class at, size_t bytes) const;
  Block* first_above(Class at) const;
  void link(Block* block);
  void unlink(Block* block);
  Block* header();

  Block* lists_[kRows][kColumns] = {};
  uint32_t columns_[kRows] = {};  // which lists of a row hold blocks
  uint64_t rows_ = 0;             // which rows do
  std::deque<Block> headers_;     // all headers ever made: they don't move
  Block* spare_ = nullptr;        // those to use again, through `next`
  std::vector<Block*> first_;     // the first block of each arena
};

}  // namespace ds
