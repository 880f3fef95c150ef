#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <thread>
#include <vector>

#include "cpus.h"
#include "futex.h"

namespace ds {
namespace {

constexpr int kSpinMicroseconds = 30;

// A job is open while its owner still hands out chunks. A helper takes part only if it enters while the job is open, so the
// owner never waits for one that sleeps or has lost its core: it waits only for those inside.
class Pool {
 public:
  int threads() const { return int(helpers_.size()) + 1; }

  void resize(int n) {
    if (n == threads()) return;
    stop();
    stopping_.store(false);
    spin_ = n <= available_cpus() ? kSpinMicroseconds : 0;
    // Helpers leave the process's signals to Node's thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int worker = 1; worker < n; worker++) helpers_.emplace_back([this, worker] { help(worker); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  // A second thread that calls parallel() at the same time gets no helpers.
  bool acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }

  void run(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t, int), void* context) {
    body_ = body, context_ = context, n_ = n, grain_ = grain;
    next_.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    job_.fetch_add(1, std::memory_order_seq_cst);
    const int64_t useful = (n + grain - 1) / grain - 1;  // the owner takes a chunk itself
    if (sleepers_.load(std::memory_order_seq_cst) > 0) futex_wake(job_, int(std::min<int64_t>(useful, threads())));
    work(0);
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    // A helper that lost its core in the middle of a chunk needs one to finish.
    const auto done = [&] { return gate_.load(std::memory_order_acquire) == 0; };
    if (!spin_until(done, kSpinMicroseconds))
      while (!done()) sched_yield();
  }

 private:
  static constexpr uint32_t kOpen = 1u << 31;

  void work(int worker) {
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= n_) return;
      body_(context_, begin, std::min(begin + grain_, n_), worker);
    }
  }

  bool enter() {
    uint32_t gate = gate_.load(std::memory_order_relaxed);
    while (gate & kOpen)
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) return true;
    return false;
  }

  void help(int worker);

  void stop() {
    stopping_.store(true);
    job_.fetch_add(1);
    futex_wake(job_);
    for (auto& helper : helpers_) helper.join();
    helpers_.clear();
  }

  std::vector<std::thread> helpers_;
  int spin_ = 0;
  void (*body_)(void*, int64_t, int64_t, int) = nullptr;
  void* context_ = nullptr;
  int64_t n_ = 0, grain_ = 1;
  std::atomic<bool> stopping_{false}, busy_{false};
  alignas(64) std::atomic<uint32_t> job_{0};       // changes with every job
  alignas(64) std::atomic<uint32_t> gate_{0};      // kOpen | helpers inside
  alignas(64) std::atomic<uint32_t> sleepers_{0};  // helpers in or near futex_wait
  alignas(64) std::atomic<int64_t> next_{0};       // first item not handed out
};

thread_local int inside_worker = -1;  // set while this thread runs a chunk: a nested parallel() runs in place

void Pool::help(int worker) {
  char name[16];
  std::snprintf(name, sizeof name, "ds-worker-%d", worker);
  pthread_setname_np(pthread_self(), name);
  inside_worker = worker;
  // Job numbers start at 0 for this helper even if it starts late: a closed gate turns it away.
  for (uint32_t seen = job_.load(); !stopping_.load();) {
    if (enter()) {
      work(worker);
      gate_.fetch_sub(1, std::memory_order_release);
    }
    const auto changed = [&] { return job_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(changed, spin_)) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      while (!changed()) futex_wait(job_, seen);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
    seen = job_.load(std::memory_order_acquire);
  }
}

// Never destroyed: process.exit() runs static destructors while helpers still work.
Pool& pool() {
  static Pool& instance = *new Pool;
  return instance;
}

}  // namespace

int default_threads() {
  const long long share = available_cpus() / env_count("LOCAL_WORLD_SIZE", 1);
  return int(std::min<long long>(kMaxThreads, env_count("DEEPSPEED_TS_THREADS", std::max<long long>(1, share))));
}

void pool_set_threads(int n) { pool().resize(std::max(1, std::min(n, kMaxThreads))); }

int pool_threads() { return pool().threads(); }

void parallel_raw(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t, int), void* context) {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  if (inside_worker < 0 && n > grain && pool().threads() > 1 && pool().acquire()) {
    inside_worker = 0;
    pool().run(n, grain, body, context);
    inside_worker = -1;
    pool().release();
    return;
  }
  // The chunks are cut as they would be for many workers, so a kernel sees the same ranges at every thread count.
  const int worker = std::max(0, inside_worker);
  for (int64_t begin = 0; begin < n; begin += grain) body(context, begin, std::min(begin + grain, n), worker);
}

}  // namespace ds
