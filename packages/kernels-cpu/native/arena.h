// Large pieces of address space taken from the system: private ones (huge pages), and shared ones that peers can map.
#pragma once
#include <cstddef>

namespace ds {

struct Arena {
  int id;        // never used again, so a peer may cache its mapping by (process, id)
  char* base;    // aligned to 2 MiB
  size_t bytes;
  int fd;        // of the memfd behind a shared arena, -1 for a private one
  bool small;    // serves small blocks only
};

constexpr size_t kArenaUnit = size_t(2) << 20;

// nullptr where the system gives none (see errno).
Arena* arena_map(size_t bytes, bool shared, bool small);
void arena_unmap(Arena* arena);

// Where `pointer` lies among the shared arenas; false if it lies in none. Any thread may ask.
bool shared_location(const void* pointer, int* arena, size_t* offset);
// The file behind a shared arena (a peer opens /proc/<pid>/fd/<fd>) and its size; -1 if there is no such arena.
int arena_fd(int arena, size_t* bytes);

}  // namespace ds
