#include "heap.h"

namespace ds {

// Rows are powers of two of 64-byte units, columns cut each into 32 equal steps; the units below 32 have row 0 to themselves.
Heap::Class Heap::class_of(size_t bytes) {
  const uint64_t units = bytes / kAlignment;
  if (units < kColumns) return {0, int(units)};
  const int top = 63 - __builtin_clzll(units);
  return {top - kColumnBits + 1, int((units >> (top - kColumnBits)) & (kColumns - 1))};
}

// A list holds blocks of nearly one size, some a little too small. A training step asks for the same sizes again and again, so
// the exact one is usually among the first.
Block* Heap::best_in(Class at, size_t bytes) const {
  Block* best = nullptr;
  int looks = 32;
  for (Block* block = lists_[at.row][at.column]; block && looks-- > 0; block = block->next) {
    if (block->bytes == bytes) return block;
    if (block->bytes > bytes && (!best || block->bytes < best->bytes)) best = block;
  }
  return best;
}

// Any block of the next class that has one is large enough.
Block* Heap::first_above(Class at) const {
  const uint32_t right = at.column + 1 < kColumns ? columns_[at.row] & (~0u << (at.column + 1)) : 0;
  if (right) return lists_[at.row][__builtin_ctz(right)];
  const uint64_t below = rows_ & (~uint64_t(0) << (at.row + 1));
  if (!below) return nullptr;
  const int row = __builtin_ctzll(below);
  return lists_[row][__builtin_ctz(columns_[row])];
}

Block* Heap::take(size_t bytes) {
  const Class at = class_of(bytes);
  Block* block = best_in(at, bytes);
  if (!block) block = first_above(at);
  if (!block) return nullptr;
  unlink(block);
  block->free = false;
  if (block->bytes > bytes) {
    Block* rest = header();
    *rest = {block->data + bytes, block->bytes - bytes, block->arena, block, block->after, nullptr, nullptr, true};
    if (rest->after) rest->after->before = rest;
    block->after = rest;
    block->bytes = bytes;
    link(rest);
  }
  return block;
}

void Heap::give(Block* block) {
  Block* after = block->after;
  if (after && after->free) {
    unlink(after);
    block->bytes += after->bytes;
    block->after = after->after;
    if (block->after) block->after->before = block;
    after->next = spare_, spare_ = after;
  }
  Block* before = block->before;
  if (before && before->free) {
    unlink(before);
    before->bytes += block->bytes;
    before->after = block->after;
    if (before->after) before->after->before = before;
    block->next = spare_, spare_ = block;
    block = before;
  }
  block->free = true;
  link(block);
}

void Heap::add(Arena* arena) {
  Block* block = header();
  *block = {arena->base, arena->bytes, arena, nullptr, nullptr, nullptr, nullptr, true};
  first_.push_back(block);
  link(block);
}

size_t Heap::release_empty() {
  size_t released = 0;
  for (size_t i = 0; i < first_.size();) {
    Block* block = first_[i];
    if (!block->free || block->after) {
      i++;
      continue;
    }
    unlink(block);
    released += block->bytes;
    arena_unmap(block->arena);
    block->next = spare_, spare_ = block;
    first_[i] = first_.back();
    first_.pop_back();
  }
  return released;
}

void Heap::link(Block* block) {
  const Class at = class_of(block->bytes);
  Block*& head = lists_[at.row][at.column];
  block->previous = nullptr;
  block->next = head;
  if (head) head->previous = block;
  head = block;
  columns_[at.row] |= 1u << at.column;
  rows_ |= uint64_t(1) << at.row;
}

void Heap::unlink(Block* block) {
  if (block->next) block->next->previous = block->previous;
  if (block->previous) {
    block->previous->next = block->next;
    return;
  }
  const Class at = class_of(block->bytes);
  lists_[at.row][at.column] = block->next;
  if (block->next) return;
  columns_[at.row] &= ~(1u << at.column);
  if (columns_[at.row] == 0) rows_ &= ~(uint64_t(1) << at.row);
}

Block* Heap::header() {
  if (!spare_) return &headers_.emplace_back();
  Block* block = spare_;
  spare_ = block->next;
  return block;
}

}  // namespace ds
