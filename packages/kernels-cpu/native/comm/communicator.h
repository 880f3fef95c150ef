// One group of ranks on one thread of its own: calls queue up, each starts when the compute stream has reached the point
// where it was made, and they run in order.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "../stream.h"
#include "mesh.h"
#include "operation.h"
#include "p2p.h"

namespace ds {
namespace comm {

// A queued call; the compute stream may wait for it.
class CommWork : public StreamWork {
 public:
  FailurePtr wait() override;
  void finish(FailurePtr failure);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
  FailurePtr failure_;
};

using MeshMaker = std::function<std::unique_ptr<Mesh>(const std::atomic<bool>& stop)>;

// When this rank was ready for a collective, when all ranks were, and when it had ended here: milliseconds of CLOCK_MONOTONIC.
struct Timing {
  double begun = 0, met = 0, ended = 0;
};

// What a communicator reports, on its own thread.
struct Events {
  std::function<void(int rank, int size, FailurePtr failure)> connected;
  std::function<void(uint64_t work, FailurePtr failure, Timing timing)> done;
  // Asks JavaScript where it made a call; "" where it does not answer in time.
  std::function<std::string(uint64_t work)> site;
  // Instead of `done` for a split: the new group's mesh, or why there is none.
  std::function<void(uint64_t work, FailurePtr failure, std::unique_ptr<Mesh> group)> split;
  std::function<void()> closed;  // the last event; the thread ends
};

class Communicator {
 public:
  // The thread makes the mesh first.
  Communicator(MeshMaker make, Events events);
  ~Communicator();

  // All of these from JavaScript's thread. Works are numbered from 1.
  uint64_t submit(const Operation& op);
  uint64_t submit_split(int color, int64_t key);
  // The work to wait for, or nullptr if it has finished well.
  std::shared_ptr<StreamWork> take(uint64_t work);
  // After what is queued, says goodbye and ends the thread.
  void close();
  // Fails what is queued and ends the thread as soon as possible; false: it is still busy after `milliseconds`.
  bool abandon(int milliseconds);

 private:
  struct Job {
    Operation op;
    uint64_t id;
    uint64_t after;  // position of the compute stream
    std::shared_ptr<CommWork> work;
    int color;
    int64_t key;
    Clock::time_point begun;
  };
  uint64_t enqueue(Job job);
  void run(MeshMaker make);
  bool next(Job* job);
  bool next_p2p(Job* job);
  void perform(Job& job);
  void perform_p2p(Job& job);
  void await_stream(const Job& job);
  void settle(const Job& job, FailurePtr failure, std::unique_ptr<Mesh> group = nullptr);
  Timing timing_of(const Job& job) const;
  FailurePtr failure_of(const Fault& fault, const Job* job) const;

  Events events_;
  std::unique_ptr<Mesh> mesh_;
  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> serving_p2p_{false};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> queue_;
  std::unordered_map<uint64_t, std::shared_ptr<CommWork>> works_;  // unfinished, or failed
  bool closing_ = false, ended_ = false;
  uint64_t last_work_ = 0;

  // The thread's own.
  std::deque<Job> in_flight_;  // sends and receives
  uint64_t sequence_ = 0;      // of collectives
  FailurePtr failure_;         // a group that has failed once stays failed
};

}  // namespace comm
}  // namespace ds
