#include "arena.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <mutex>
#include <vector>

namespace ds {
namespace {

// Shared arenas by id, for other threads' questions. Never destroyed: threads outlive static destructors at process.exit().
struct SharedArenas {
  std::mutex mutex;
  std::vector<const Arena*> list;
  int next_id = 1;
};

SharedArenas& shared_arenas() {
  static SharedArenas& instance = *new SharedArenas;
  return instance;
}

// `bytes` of address space at a multiple of kArenaUnit: a larger range with its ends given back.
char* reserve(size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void* range = mmap(nullptr, bytes + kArenaUnit, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (range == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(range);
  const size_t head = (kArenaUnit - reinterpret_cast<uintptr_t>(begin) % kArenaUnit) % kArenaUnit;
  if (head) munmap(begin, head);
  munmap(begin + head + bytes, kArenaUnit - head);
  return begin + head;
}

int memory_file(size_t bytes) {
  const int fd = memfd_create("deepspeed-ts", MFD_CLOEXEC);
  if (fd >= 0 && ftruncate(fd, off_t(bytes)) == 0) return fd;
  const int error = errno;
  if (fd >= 0) close(fd);
  errno = error;
  return -1;
}

}  // namespace

Arena* arena_map(size_t bytes, bool shared, bool small) {
  char* base = reserve(bytes);
  if (!base) return nullptr;
  int fd = -1;
  if (shared) {
    fd = memory_file(bytes);
    if (fd < 0 || mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
      const int error = errno;
      munmap(base, bytes);
      if (fd >= 0) close(fd);
      errno = error;
      return nullptr;
    }
  }
  madvise(base, bytes, MADV_HUGEPAGE);
  SharedArenas& all = shared_arenas();
  std::lock_guard<std::mutex> lock(all.mutex);
  Arena* arena = new Arena{all.next_id++, base, bytes, fd, small};
  if (shared) all.list.push_back(arena);
  return arena;
}

void arena_unmap(Arena* arena) {
  SharedArenas& all = shared_arenas();
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    for (size_t i = 0; i < all.list.size(); i++)
      if (all.list[i] == arena) all.list.erase(all.list.begin() + ptrdiff_t(i));
  }
  munmap(arena->base, arena->bytes);
  if (arena->fd >= 0) close(arena->fd);
  delete arena;
}

bool shared_location(const void* pointer, int* arena, size_t* offset) {
  const char* p = static_cast<const char*>(pointer);
  SharedArenas& all = shared_arenas();
  std::lock_guard<std::mutex> lock(all.mutex);
  for (const Arena* a : all.list)
    if (p >= a->base && p < a->base + a->bytes) {
      *arena = a->id;
      *offset = size_t(p - a->base);
      return true;
    }
  return false;
}

int arena_fd(int arena, size_t* bytes) {
  SharedArenas& all = shared_arenas();
  std::lock_guard<std::mutex> lock(all.mutex);
  for (const Arena* a : all.list)
    if (a->id == arena) {
      *bytes = a->bytes;
      return a->fd;
    }
  return -1;
}

}  // namespace ds
