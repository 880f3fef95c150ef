// Two rings of chunks in one anonymous shared mapping (a memfd: it has no name and dies with its last user).
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

#include "link.h"

namespace ds {
namespace comm {
namespace {

constexpr uint64_t kSlots = 8;

// One writer, one reader. Counters only grow; a slot is its counter modulo kSlots. Each side's counter has its own
// cache line, so that the two don't fight over one.
struct Ring {
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> freed;
  alignas(64) uint32_t length[kSlots];
  alignas(4096) char slot[kSlots][kChunk];
};

struct Pair {
  alignas(64) std::atomic<uint32_t> sleeping[2];  // by side
  Ring ring[2];                                   // ring[s] is written by side s
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "shared between processes");

class ShmLink : public Link {
 public:
  ShmLink(Pair* pair, int side, Fd peer_doorbell)
      : pair_(pair), out_(&pair->ring[side]), in_(&pair->ring[1 - side]), side_(side), bell_(std::move(peer_doorbell)) {}
  ~ShmLink() override { munmap(pair_, sizeof(Pair)); }

  size_t send(const void* data, size_t bytes) override {
    uint64_t next = out_->written.load(std::memory_order_relaxed);
    if (next - out_->freed.load(std::memory_order_acquire) >= kSlots) {
      clogged = true;
      return 0;
    }
    size_t part = bytes < kChunk ? bytes : kChunk;
    memcpy(out_->slot[next % kSlots], data, part);
    out_->length[next % kSlots] = static_cast<uint32_t>(part);
    out_->written.store(next + 1, std::memory_order_release);
    ring_bell();
    return part;
  }

  size_t recv(void* data, size_t bytes) override {
    size_t part = bytes < kChunk ? bytes : kChunk;
    const void* chunk = peek(part);
    if (chunk == nullptr) return 0;
    memcpy(data, chunk, part);
    drop();
    return part;
  }

  const void* peek(size_t bytes) override {
    uint64_t next = in_->freed.load(std::memory_order_relaxed);
    if (next == in_->written.load(std::memory_order_acquire)) {
      starved = true;
      return nullptr;
    }
    if (in_->length[next % kSlots] != bytes) dead = true;  // never: both sides cut messages alike
    return in_->slot[next % kSlots];
  }
  void drop() override {
    in_->freed.fetch_add(1, std::memory_order_release);
    ring_bell();
  }

  bool ended() const override { return true; }
  void set_sleeping(bool sleeping) override { pair_->sleeping[side_].store(sleeping, std::memory_order_seq_cst); }

 private:
  // Either the sleeper sees what was just published, or we see its flag: both sides store, fence, then load.
  void ring_bell() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (pair_->sleeping[1 - side_].load(std::memory_order_relaxed) == 0) return;
    if (pair_->sleeping[1 - side_].exchange(0) == 0) return;
    uint64_t one = 1;
    ssize_t ignored = write(bell_.get(), &one, sizeof one);
    (void)ignored;
  }

  Pair* pair_;
  Ring* out_;
  Ring* in_;
  int side_;
  Fd bell_;
};

}  // namespace

Fd create_shm_pair() {
  Fd memory(memfd_create("deepspeed-ts-link", MFD_CLOEXEC));
  if (!memory || ftruncate(memory.get(), sizeof(Pair)) != 0) throw SocketError{errno};
  return memory;
}

std::unique_ptr<Link> make_shm_link(const Fd& memory, int side, Fd peer_doorbell) {
  void* at = mmap(nullptr, sizeof(Pair), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (at == MAP_FAILED) throw SocketError{errno};
  // All zero as the kernel gives it is a valid pair with empty rings.
  return std::make_unique<ShmLink>(static_cast<Pair*>(at), side, std::move(peer_doorbell));
}

}  // namespace comm
}  // namespace ds
