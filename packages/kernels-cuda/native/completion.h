// A thread that waits for events of the device and then runs what was put off until then. Events of different streams may happen
// in any order, so it looks at all of them in turn.
#pragma once
#include <cuda_runtime_api.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ds {

class Completion {
 public:
  void start(int device);
  // Runs what is pending, as far as its events have happened or the device has failed, and ends.
  void stop();
  // `function(error)` runs on this object's thread once `event` has happened or can't happen any more.
  void when(cudaEvent_t event, std::function<void(cudaError_t)> function);
  // An event for when(), from a pool.
  cudaEvent_t event();
  // Whether somebody waits for the device; any thread.
  bool waits() const { return waiting_ > 0; }

 private:
  struct Pending {
    cudaEvent_t event;
    std::function<void(cudaError_t)> function;
  };
  void run(int device);

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Pending> arriving_;
  std::vector<cudaEvent_t> pool_;
  std::atomic<int> waiting_{0};
  bool stopping_ = false;
};

Completion& completion();

}  // namespace ds
