#include "completion.h"

#include <sys/prctl.h>

#include <chrono>

namespace ds {

Completion& completion() {
  static Completion& instance = *new Completion;
  return instance;
}

void Completion::start(int device) {
  stopping_ = false;
  thread_ = std::thread([this, device] { run(device); });
}

void Completion::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Completion::when(cudaEvent_t event, std::function<void(cudaError_t)> function) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    arriving_.push_back({event, std::move(function)});
    waiting_++;
  }
  arrived_.notify_one();
}

cudaEvent_t Completion::event() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!pool_.empty()) {
      const cudaEvent_t event = pool_.back();
      pool_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  return event;
}

void Completion::run(int device) {
  cudaSetDevice(device);
  prctl(PR_SET_TIMERSLACK, 1000UL);  // so that the short sleep below is short
  std::vector<Pending> pending;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (pending.empty()) arrived_.wait(lock, [this] { return stopping_ || !arriving_.empty(); });
      for (Pending& item : arriving_) pending.push_back(std::move(item));
      arriving_.clear();
      if (stopping_ && pending.empty()) return;
    }
    size_t kept = 0;
    bool any = false;
    for (size_t i = 0; i < pending.size(); i++) {
      const cudaError_t state = cudaEventQuery(pending[i].event);
      if (state == cudaErrorNotReady) {
        if (kept != i) pending[kept] = std::move(pending[i]);
        kept++;
        continue;
      }
      any = true;
      pending[i].function(state);
      const std::lock_guard<std::mutex> lock(mutex_);
      pool_.push_back(pending[i].event);
      waiting_--;
    }
    pending.resize(kept);
    if (!any && kept > 0) std::this_thread::sleep_for(std::chrono::microseconds(15));
  }
}

}  // namespace ds
