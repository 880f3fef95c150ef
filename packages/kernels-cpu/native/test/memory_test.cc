#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "allocator.h"
#include "check.h"
#include "kernel.h"
#include "scratch.h"

using namespace ds;

namespace {

uint32_t state = 12345;
uint32_t random_below(uint32_t n) {
  state = state * 1664525u + 1013904223u;
  return (state >> 8) % n;
}

void nothing_queued() {}

int allocate(Allocator& memory, size_t bytes, bool shared = false) {
  std::string reason;
  return memory.allocate(bytes, shared, nothing_queued, &reason);
}

}  // namespace

TEST("blocks of a heap never overlap, are aligned, and merge back into whole arenas") {
  Allocator memory;
  struct Piece {
    int handle;
    size_t bytes;
    uint8_t mark;
  };
  std::vector<Piece> pieces;
  size_t live = 0;
  for (int i = 0; i < 20000; i++) {
    if (pieces.empty() || random_below(100) < 52) {
      const size_t bytes = random_below(5) == 0 ? random_below(3000000) : random_below(2000);
      const int handle = allocate(memory, bytes, random_below(2));
      CHECK(handle > 0);
      const Buffer* buffer = memory.find(handle);
      CHECK(reinterpret_cast<uintptr_t>(buffer->data) % 64 == 0);
      const uint8_t mark = uint8_t(i);
      if (bytes) static_cast<uint8_t*>(buffer->data)[0] = static_cast<uint8_t*>(buffer->data)[bytes - 1] = mark;
      pieces.push_back({handle, bytes, mark});
      live += bytes;
    } else {
      const size_t at = random_below(uint32_t(pieces.size()));
      const Piece piece = pieces[at];
      const uint8_t* data = static_cast<uint8_t*>(memory.find(piece.handle)->data);
      if (piece.bytes) CHECK(data[0] == piece.mark && data[piece.bytes - 1] == piece.mark);
      CHECK(memory.free(piece.handle));
      live -= piece.bytes;
      pieces[at] = pieces.back();
      pieces.pop_back();
    }
    CHECK(memory.counters().live == live);
  }
  for (const Piece& piece : pieces) CHECK(memory.free(piece.handle));
  CHECK(memory.counters().live == 0);
  memory.trim();
  CHECK(memory.counters().reserved == 0);
}

TEST("a freed block serves the next request of its size") {
  Allocator memory;
  const int other = allocate(memory, 10 << 20);
  const int first = allocate(memory, 100000001);
  const void* data = memory.find(first)->data;
  memory.free(first);
  const size_t reserved = memory.counters().reserved;
  const int second = allocate(memory, 100000001);
  CHECK(memory.find(second)->data == data);
  CHECK(memory.counters().reserved == reserved);
  memory.free(second);
  memory.free(other);
  memory.clear();
}

TEST("a handle that was freed is known to be dead, also when its slot lives again") {
  Allocator memory;
  const int first = allocate(memory, 100);
  CHECK(memory.free(first));
  CHECK(!memory.free(first));
  const int second = allocate(memory, 100);
  CHECK(second != first && !memory.find(first) && memory.find(second));
  CHECK(!memory.find(0) && !memory.find(-1) && !memory.find(1 << 30));
  memory.clear();
  CHECK(!memory.find(second));
}

TEST("the limit refuses what does not fit, and cached arenas make room before it does") {
  setenv("DEEPSPEED_TS_CPU_MEMORY_LIMIT", "100000000", 1);
  Allocator memory;
  unsetenv("DEEPSPEED_TS_CPU_MEMORY_LIMIT");
  const int first = allocate(memory, 60000000);
  CHECK(first > 0);
  std::string reason;
  CHECK(memory.allocate(60000000, false, nothing_queued, &reason) == 0);
  CHECK(reason.find("limit of 100000000") != std::string::npos);
  CHECK(memory.counters().live == 60000000);
  memory.free(first);
  const int all = allocate(memory, 99000000, true);  // only after the first arena went back
  CHECK(all > 0);
  memory.clear();
  CHECK(memory.counters().reserved == 0);
}

TEST("shared buffers can be located in a file that others map; private ones can't") {
  Allocator memory;
  const int handle = allocate(memory, 1000, true), other = allocate(memory, 1000, false);
  int arena;
  size_t offset, bytes;
  CHECK(shared_location(static_cast<char*>(memory.find(handle)->data) + 10, &arena, &offset));
  CHECK(offset >= 10 && arena_fd(arena, &bytes) >= 0 && offset + 990 <= bytes);
  CHECK(!shared_location(memory.find(other)->data, &arena, &offset));
  memory.clear();
  CHECK(arena_fd(arena, &bytes) == -1);
}

TEST("scratch grows, keeps its block, and is counted") {
  char* small = static_cast<char*>(scratch(0, 1, 100));
  CHECK(small && scratch(0, 1, 50) == small);
  CHECK(scratch_bytes() == 4096);
  char* large = static_cast<char*>(scratch(0, 1, 3 << 20));
  CHECK(reinterpret_cast<uintptr_t>(large) % 64 == 0);
  std::memset(large, 1, 3 << 20);
  CHECK(scratch(-1, 1, 64) != large);
  CHECK(scratch_bytes() == (4 << 20) + 4096);
  scratch_release();
  CHECK(scratch_bytes() == 0);
}
