// Sleeping on a 32-bit word, and the pause between two looks at one. Linux only, like memfd and /proc elsewhere here.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

namespace ds {

// Returns when woken, when *word != expected, after `timeout` (if not null), or spuriously: callers loop.
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t expected, const timespec* timeout = nullptr) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, timeout, nullptr, 0);
}

inline void futex_wake(std::atomic<uint32_t>& word, int count = INT_MAX) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

inline void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Looks at `ready` for about `microseconds`; ranks share cores, so longer than a sleep and wake-up cost is never worth it.
template <class Ready> bool spin_until(const Ready& ready, int microseconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(microseconds);
  do {
    for (int i = 0; i < 16; i++) {
      if (ready()) return true;
      cpu_pause();
    }
  } while (Clock::now() < end);
  return ready();
}

}  // namespace ds
