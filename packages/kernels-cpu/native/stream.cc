#include "stream.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "futex.h"
#include "pool.h"
#include "registry.h"
#include "ring.h"

namespace ds {
namespace {

constexpr int kSpinMicroseconds = 50;
constexpr size_t kInlineWrite = 16 << 10;  // larger host copies go through malloc, not the ring

enum Kind : uint32_t { kLaunch, kWrite, kRead, kCall, kWait, kForgive };

// The 8-byte header of the ring stands before each; views follow at a multiple of 8.
struct LaunchCommand {
  int32_t kernel, n_in, n_out, n_attrs;
  View* views() { return reinterpret_cast<View*>(this + 1); }
  double* attrs() { return reinterpret_cast<double*>(views() + n_in + n_out); }
};
struct WriteCommand {
  void* target;
  size_t bytes;
  void* copy;  // malloc'ed; nullptr: the bytes follow
};
struct CallCommand {
  void (*function)(void*);
  void* argument;
};

class Stream {
 public:
  void start() {
    stopping_.store(false);
    stopped_.store(0);
    kernel_failure_ = group_failure_ = nullptr;
    failed_.store(false);
    sigset_t all, before;  // the process's signals stay with Node's thread
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { loop(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  bool stop(int milliseconds) {
    if (!thread_.joinable()) return true;
    stopping_.store(true);
    wake_consumer();
    wake_waiters();
    timespec timeout = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    if (!stopped_.load()) futex_wait(stopped_, 0, &timeout);
    if (!stopped_.load()) {
      thread_.detach();
      return false;
    }
    thread_.join();
    return true;
  }

  void* prepare(Kind kind, uint64_t payload) {
    for (;;) {
      if (void* command = ring_.prepare(kind, payload)) return command;
      // Half of the queue at a time: one wake-up for many commands.
      const uint64_t done = executed_.load(), queued = queued_.load();
      if (!wait_until(done + std::max<uint64_t>(1, (queued - done) / 2))) {
        static char nowhere[64 << 10];  // the process is going down: what is written here is never run
        return nowhere;
      }
    }
  }

  void commit() {
    if (stopping_.load(std::memory_order_relaxed)) return;
    queued_.store(queued_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    ring_.push();
    if (sleeping_.load(std::memory_order_seq_cst)) wake_consumer();
  }

  // Nothing is queued or running and nothing failed: the producer may touch device memory itself.
  bool idle() const { return executed_.load(std::memory_order_acquire) == queued_.load() && !failed_.load(); }

  bool wait_until(uint64_t position) {
    const auto reached = [&] { return executed_.load(std::memory_order_seq_cst) >= position; };
    if (reached() || spin_until(reached, kSpinMicroseconds)) return true;
    for (;;) {
      const uint32_t seen = progress_.load(std::memory_order_seq_cst);
      uint64_t at = wake_at_.load();
      while (position < at && !wake_at_.compare_exchange_weak(at, position)) {
      }
      if (reached()) return true;
      if (stopping_.load()) return false;
      futex_wait(progress_, seen);
    }
  }

  uint64_t queued() const { return queued_.load(std::memory_order_acquire); }
  uint64_t executed() const { return executed_.load(std::memory_order_acquire); }
  bool failed() const { return failed_.load(std::memory_order_acquire); }

 private:
  void loop() {
    pthread_setname_np(pthread_self(), "ds-stream");
    pool_set_threads(default_threads());
    for (;;) {
      const Ring::Header* command = ring_.front();
      if (stopping_.load(std::memory_order_relaxed)) break;
      if (!command) {
        sleep();
        continue;
      }
      run(Kind(command->kind), const_cast<Ring::Header*>(command) + 1);
      finish();
    }
    discard();
    pool_set_threads(1);
    stopped_.store(1);
    futex_wake(stopped_);
  }

  void run(Kind kind, void* payload) {
    switch (kind) {
      case kLaunch:
        if (!failed_.load(std::memory_order_relaxed)) launch(*static_cast<LaunchCommand*>(payload));
        break;
      case kWrite: {
        auto& write = *static_cast<WriteCommand*>(payload);
        if (!failed_.load(std::memory_order_relaxed)) std::memcpy(write.target, write.copy ? write.copy : &write + 1, write.bytes);
        std::free(write.copy);
        break;
      }
      case kRead: {
        ReadRequest& read = **static_cast<ReadRequest**>(payload);
        read.failure = kernel_failure_ ? kernel_failure_ : group_failure_;
        if (!read.failure && read.bytes) std::memcpy(read.target, read.source, read.bytes);
        if (read.done) read.done(&read);
        break;
      }
      case kCall: {
        auto& call = *static_cast<CallCommand*>(payload);
        call.function(call.argument);
        break;
      }
      case kWait: {
        // Also while poisoned: the collective still uses memory that later commands may write.
        auto* work = *static_cast<std::shared_ptr<StreamWork>**>(payload);
        FailurePtr failure = (*work)->wait();
        if (failure && !group_failure_) group_failure_ = failure;
        delete work;
        break;
      }
      case kForgive: {
        auto* reported = *static_cast<FailurePtr**>(payload);
        if (kernel_failure_ == *reported) kernel_failure_ = nullptr;
        delete reported;
        break;
      }
    }
    failed_.store(kernel_failure_ || group_failure_, std::memory_order_release);
  }

  void launch(LaunchCommand& command) {
    const View* views = command.views();
    const Call call = {views, command.n_in, views + command.n_in, command.n_out, command.attrs(), command.n_attrs};
    const char* error = kernel_choice(command.kernel).run(call);
    if (!error) return;
    auto failure = std::make_shared<Failure>();
    failure->kind = "kernel";
    failure->op = kernel_name(command.kernel);
    failure->text = error;
    kernel_failure_ = failure;
  }

  void finish() {
    ring_.pop();
    const uint64_t done = executed_.load(std::memory_order_relaxed) + 1;
    executed_.store(done, std::memory_order_seq_cst);
    if (done >= wake_at_.load(std::memory_order_seq_cst)) wake_waiters();
  }

  // Only what owns memory needs care; reads of a stopped stream are never answered.
  void discard() {
    while (const Ring::Header* command = ring_.front()) {
      void* payload = const_cast<Ring::Header*>(command) + 1;
      if (command->kind == kWrite) std::free(static_cast<WriteCommand*>(payload)->copy);
      if (command->kind == kWait) delete *static_cast<std::shared_ptr<StreamWork>**>(payload);
      if (command->kind == kForgive) delete *static_cast<FailurePtr**>(payload);
      ring_.pop();
      executed_.fetch_add(1);
    }
  }

  void sleep() {
    const auto more = [&] { return ring_.front() || stopping_.load(std::memory_order_relaxed); };
    if (spin_until(more, kSpinMicroseconds)) return;
    sleeping_.store(1, std::memory_order_seq_cst);
    while (!more() && sleeping_.load()) futex_wait(sleeping_, 1);
    sleeping_.store(0, std::memory_order_relaxed);
  }

  void wake_consumer() {
    sleeping_.store(0);
    futex_wake(sleeping_);
  }

  // Forgets the target before the wake-up: a waiter that registers in between sees `progress_` change and looks again.
  void wake_waiters() {
    wake_at_.store(UINT64_MAX);
    progress_.fetch_add(1);
    futex_wake(progress_);
  }

  Ring ring_;
  std::thread thread_;
  FailurePtr kernel_failure_, group_failure_;  // the stream's thread only
  std::atomic<bool> failed_{false}, stopping_{false};
  std::atomic<uint32_t> stopped_{0};
  alignas(64) std::atomic<uint64_t> queued_{0};
  alignas(64) std::atomic<uint64_t> executed_{0};
  alignas(64) std::atomic<uint32_t> sleeping_{0};          // the consumer sleeps on it
  alignas(64) std::atomic<uint64_t> wake_at_{UINT64_MAX};  // lowest position that someone sleeps for
  std::atomic<uint32_t> progress_{0};                      // waiters sleep on it
};

// Never destroyed: process.exit() runs static destructors while the thread still works.
Stream& stream() {
  static Stream& instance = *new Stream;
  return instance;
}

template <class T> void queue(Kind kind, const T& command) {
  std::memcpy(stream().prepare(kind, sizeof command), &command, sizeof command);
  stream().commit();
}

}  // namespace

void stream_start() { stream().start(); }

bool stream_stop(int milliseconds) { return stream().stop(milliseconds); }

Launch stream_launch(int kernel, int n_in, int n_out, int n_attrs) {
  const uint64_t bytes = sizeof(LaunchCommand) + uint64_t(n_in + n_out) * sizeof(View) + uint64_t(n_attrs) * sizeof(double);
  auto* command = static_cast<LaunchCommand*>(stream().prepare(kLaunch, bytes));
  *command = {kernel, n_in, n_out, n_attrs};
  return {command->views(), command->attrs()};
}

void stream_commit() { stream().commit(); }

void stream_write(void* target, const void* bytes, size_t count) {
  if (stream().idle()) {
    std::memcpy(target, bytes, count);
    return;
  }
  const bool in_ring = count <= kInlineWrite;
  auto* command = static_cast<WriteCommand*>(stream().prepare(kWrite, sizeof(WriteCommand) + (in_ring ? count : 0)));
  *command = {target, count, in_ring ? nullptr : std::malloc(count)};
  std::memcpy(in_ring ? command + 1 : command->copy, bytes, count);
  stream().commit();
}

void stream_read(ReadRequest* request) { queue(kRead, request); }

void stream_call(void (*function)(void*), void* argument) { queue(kCall, CallCommand{function, argument}); }

void stream_enqueue_wait(std::shared_ptr<StreamWork> work) { queue(kWait, new std::shared_ptr<StreamWork>(std::move(work))); }

void stream_forgive(const FailurePtr& failure) { queue(kForgive, new FailurePtr(failure)); }

uint64_t stream_position() { return stream().queued(); }

uint64_t stream_executed() { return stream().executed(); }

bool stream_wait_until(uint64_t position) { return stream().wait_until(position); }

bool stream_failed() { return stream().failed(); }

}  // namespace ds
