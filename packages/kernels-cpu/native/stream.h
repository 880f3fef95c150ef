// The compute stream: one thread that runs queued commands in order. JavaScript's thread is the only producer; the addon's other
// threads may wait for positions of the stream.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernel.h"

namespace ds {

// Why work failed, as data for a typed error: `kind` is "kernel", or one of the communicator's ("peer_lost", "mismatch", ...).
struct Failure {
  std::string kind;
  std::string op;
  std::string text;
  int rank = -1;
  int peer = -1;
};
using FailurePtr = std::shared_ptr<const Failure>;

// Work of another thread (a collective) that the stream waits for.
class StreamWork {
 public:
  virtual ~StreamWork() = default;
  // Blocks the stream's thread until the work has finished; nullptr: it succeeded. Must return when its owner shuts down.
  virtual FailurePtr wait() = 0;
};

// A copy out of the device. `done` runs on the stream's thread; the request must live until then.
struct ReadRequest {
  const void* source = nullptr;
  void* target = nullptr;
  size_t bytes = 0;
  FailurePtr failure;
  void (*done)(ReadRequest*) = nullptr;  // may be null
};

// A launch that is being written into the queue: fill in the arrays, then stream_commit().
struct Launch {
  View* views;  // inputs, then outputs
  double* attrs;
};

void stream_start();
// Skips what is queued, waits up to `milliseconds` for the running command and ends the thread; false: it still runs.
bool stream_stop(int milliseconds);

// ---- producer: JavaScript's thread. A full queue blocks it. -------------------------------------------------
Launch stream_launch(int kernel, int n_in, int n_out, int n_attrs);
void stream_commit();  // queues the launch; without it the launch never was
void stream_write(void* target, const void* bytes, size_t count);  // copies `bytes` before it returns
void stream_read(ReadRequest* request);
void stream_call(void (*function)(void*), void* argument);
// Later commands wait for `work`. If it fails the stream is poisoned for good: a group that lost a rank stays lost.
void stream_enqueue_wait(std::shared_ptr<StreamWork> work);
// Lets commands queued from here on run again after `failure` of kind "kernel" was reported. What was queued before stays
// skipped: it was written in the belief that the failed kernel had run.
void stream_forgive(const FailurePtr& failure);

// ---- any thread --------------------------------------------------------------------------------------------
// The number of commands queued so far, and of those done. A command's position is stream_position() right after it is queued.
uint64_t stream_position();
uint64_t stream_executed();
// Blocks until the commands up to `position` are done (or skipped); false: the stream was stopped first.
bool stream_wait_until(uint64_t position);
// Whether commands are being skipped because one failed.
bool stream_failed();

}  // namespace ds
