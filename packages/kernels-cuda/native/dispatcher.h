// The dispatcher: one thread that takes commands in order from JavaScript's and queues their device work on the compute stream.
// JavaScript never waits for a launch (a full launch queue of the driver blocks this thread instead), and every call into the
// CUDA libraries that belongs to the stream's order is made here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
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

// A copy out of the device. `done` runs on the completion thread; the request must live until then.
struct ReadRequest {
  const void* source = nullptr;
  void* target = nullptr;  // host memory of the caller
  size_t bytes = 0;
  FailurePtr failure;
  void (*done)(ReadRequest*) = nullptr;
  uint64_t place = 0;  // among all commands; the dispatcher's
};

// A launch that is being written into the queue: fill in the arrays, then dispatcher_commit().
struct Launch {
  View* views;  // inputs, then outputs
  double* attrs;
};

void dispatcher_start();
// Skips what is queued, waits up to `milliseconds` for the device and ends the threads; false: it still runs.
bool dispatcher_stop(int milliseconds);

// ---- producer: JavaScript's thread. A full queue blocks it. -------------------------------------------------
Launch dispatcher_launch(int kernel, int n_in, int n_out, int n_attrs);
void dispatcher_commit();
// Copies `bytes` before it returns; false: the host has no memory to pin for them.
bool dispatcher_write(void* target, const void* bytes, size_t count);
void dispatcher_read(ReadRequest* request);
// Runs `function(compute stream)` on the dispatcher's thread in its turn; it queues device work and returns why that failed, or
// nullptr. A failure of another kind than "kernel" poisons the dispatcher for good: a group that lost a rank stays lost. Where work
// before it has failed it is called with `skipped` true and must only let go of what it holds.
using Task = std::function<FailurePtr(cudaStream_t compute, bool skipped)>;
void dispatcher_run(Task task);
// Whether a read has seen the end of all that was queued so far, and nothing has failed.
bool dispatcher_settled();
// Whether launches are gathered into CUDA graphs from here on.
void dispatcher_graphs(bool on);
// Lets commands queued from here on run again after `failure` of kind "kernel" was reported.
void dispatcher_forgive(const FailurePtr& failure);

// ---- any thread --------------------------------------------------------------------------------------------
// Waits until all that was queued so far has run on the device (or was skipped). JavaScript's thread only.
void dispatcher_drain();
// Fails the work queued from now on, e.g. because a peer was lost; for other threads than the dispatcher's.
void dispatcher_poison(FailurePtr failure);
// Runs `function` on the completion thread once `event` (of dispatcher_event(), which takes it back then) has happened.
void dispatcher_when(cudaEvent_t event, std::function<void()> function);
// The compute stream, for the dispatcher's thread and for asking whether it is being captured.
cudaStream_t dispatcher_stream();
// An event without timing, from a pool.
cudaEvent_t dispatcher_event();

}  // namespace ds
