// One rank's side of a group of GPUs: NCCL on a stream and a thread of its own, beside the compute stream.
//
//   JavaScript's thread   submit()      notes the operation, queues a task for the dispatcher
//   dispatcher's thread   the task      records where the compute stream is, hands the operation to the group's thread
//   group's thread        run()         makes the group's stream wait for that, calls NCCL, records the end
//   dispatcher's thread   wait()        makes the compute stream wait for the end
//
// NCCL's calls may wait for other ranks (the first use of an algorithm connects it), so neither JavaScript nor the dispatcher makes
// them. The communicator is a non-blocking one: a call that waits can be given up, and only the group's thread ever touches NCCL.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../dispatcher.h"
#include "nccl.h"
#include "operation.h"

namespace ds {
namespace comm {

struct GroupSettings {
  nccl::UniqueId id;
  int rank;
  int size;
  int64_t silence_ms;  // a collective that takes longer has failed
};

// What a group tells; from any thread.
struct GroupEvents {
  std::function<void(FailurePtr)> connected;
  std::function<void(uint64_t work, FailurePtr)> done;
  std::function<void(FailurePtr)> trouble;  // NCCL's own report of an error
  std::function<void()> closed;             // the last event
};

// Operations that NCCL gets as one; one operation, except for sends and receives.
struct Batch {
  enum State { kQueued, kRunning, kEnded, kFailed };
  std::vector<Operation> operations;
  cudaEvent_t ready = nullptr;  // the compute stream has come to it
  cudaEvent_t end = nullptr;
  State state = kQueued;        // guarded by the group's mutex
  int64_t started_ms = 0;
};
using BatchPtr = std::shared_ptr<Batch>;

class Group : public std::enable_shared_from_this<Group> {
 public:
  Group(const GroupSettings& settings, GroupEvents events);
  ~Group();
  void start();

  // ---- JavaScript's thread ----
  uint64_t submit(Operation operation);
  void flush();
  void wait(uint64_t work);
  void fail(FailurePtr failure);  // any thread; the first call counts
  void close();                   // after what is queued
  // Gives up whatever goes on and waits up to `milliseconds` for the thread to end; false: it still runs.
  bool abandon(int milliseconds);

 private:
  FailurePtr failure();
  void hand_over(const BatchPtr& batch);
  FailurePtr order_behind(const BatchPtr& batch, cudaStream_t compute);

  void run();
  FailurePtr connect();
  FailurePtr launch(Batch& batch);
  int issue(const Operation& operation);
  int settle(int result);
  FailurePtr nccl_failure(const char* what, int result);
  void watch();
  void end_failed();
  void disconnect();
  void ended(const BatchPtr& batch);
  cudaEvent_t take_event();
  void give_event(cudaEvent_t event);

  const GroupSettings settings_;
  const GroupEvents events_;
  const nccl::Table* nccl_ = nullptr;
  nccl::Comm* comm_ = nullptr;     // the group's thread only
  cudaStream_t stream_ = nullptr;  // the group's thread only
  void* token_ = nullptr;          // what a barrier reduces

  // JavaScript's thread only.
  uint64_t last_work_ = 0;
  BatchPtr open_;  // sends and receives that wait for flush()

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<BatchPtr> queue_;       // handed over, not yet with NCCL
  std::list<BatchPtr> unfinished_;   // handed over, not ended
  std::deque<BatchPtr> by_work_;     // in order of their works; what has ended leaves
  std::vector<cudaEvent_t> events_pool_;
  FailurePtr failure_;
  int handing_over_ = 0;             // batches that the dispatcher has yet to hand over
  bool closing_ = false;
  bool over_ = false;                // the thread has ended
  std::atomic<bool> failed_{false};
  std::thread thread_;
};

}  // namespace comm
}  // namespace ds
