#include "group.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>

namespace ds {
namespace comm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kWatchMs = 100;      // how often NCCL is asked for errors while something goes on
constexpr int kAbortMs = 5000;     // how long kernels of an aborted group may take to leave the device
constexpr int kFinalizeMs = 5000;  // how long an orderly end may take
constexpr int64_t kLateMs = 5000;  // JavaScript, which can say which rank is missing, gets this long to speak first

int64_t now_ms() { return std::chrono::duration_cast<milliseconds>(Clock::now().time_since_epoch()).count(); }

FailurePtr make_failure(const char* kind, int rank, std::string text) {
  auto failure = std::make_shared<Failure>();
  failure->kind = kind;
  failure->op = "collective";
  failure->rank = rank;
  failure->text = std::move(text);
  return failure;
}

// A kernel of this rank failed before: what the others would get from it means nothing.
FailurePtr skipped_failure(int rank) {
  auto failure = std::make_shared<Failure>(*make_failure("peer_lost", rank, "rank " + std::to_string(rank) + " can't take part: its own computation has failed"));
  failure->peer = rank;
  return failure;
}

int nccl_type(int dtype) {
  switch (dtype) {
    case F32: return nccl::kFloat32;
    case F16: return nccl::kFloat16;
    case BF16: return nccl::kBfloat16;
    case I32: return nccl::kInt32;
    case I64: return nccl::kInt64;
    case I8: return nccl::kInt8;
    default: return nccl::kUint8;
  }
}

constexpr int kReductions[] = {nccl::kSum, nccl::kAvg, nccl::kMax, nccl::kMin};

}  // namespace

Group::Group(const GroupSettings& settings, GroupEvents events) : settings_(settings), events_(std::move(events)) {}

Group::~Group() {
  if (!thread_.joinable()) return;
  // The thread itself may hold the last reference.
  if (thread_.get_id() == std::this_thread::get_id()) thread_.detach();
  else thread_.join();
}

void Group::start() {
  thread_ = std::thread([self = shared_from_this()]() mutable {
    Group& group = *self;
    group.run();
    // The last event lets JavaScript's thread drop the group, which joins this thread: no reference may be left here.
    const auto closed = group.events_.closed;
    self.reset();
    closed();
  });
}

// ---- JavaScript's thread -----------------------------------------------------------------------------------
uint64_t Group::submit(Operation operation) {
  operation.work = ++last_work_;
  if (!operation.is_p2p()) flush();
  BatchPtr batch = open_;
  if (!batch) {
    batch = std::make_shared<Batch>();
    const std::lock_guard<std::mutex> lock(mutex_);
    by_work_.push_back(batch);
  }
  batch->operations.push_back(operation);
  open_ = batch;
  if (!operation.is_p2p()) flush();
  return operation.work;
}

void Group::flush() {
  if (!open_) return;
  BatchPtr batch = std::move(open_);
  open_ = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    handing_over_++;
  }
  dispatcher_run([self = shared_from_this(), batch](cudaStream_t compute, bool skipped) -> FailurePtr {
    if (skipped) {
      self->fail(skipped_failure(self->settings_.rank));
    } else {
      const cudaEvent_t ready = self->take_event();
      cudaEventRecord(ready, compute);
      batch->ready = ready;
    }
    self->hand_over(batch);
    return nullptr;
  });
}

void Group::wait(uint64_t work) {
  flush();
  BatchPtr batch;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const BatchPtr& candidate : by_work_)
      if (!candidate->operations.empty() && candidate->operations.front().work <= work && work <= candidate->operations.back().work) batch = candidate;
    if (!batch && !failure_) return;  // it has ended: the host knows, so the device needs no order
  }
  dispatcher_run([self = shared_from_this(), batch](cudaStream_t compute, bool skipped) -> FailurePtr {
    if (skipped) return nullptr;
    return self->order_behind(batch, compute);
  });
}

void Group::fail(FailurePtr failure) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failure_) return;
  failure_ = std::move(failure);
  failed_ = true;
  changed_.notify_all();
}

void Group::close() {
  flush();
  const std::lock_guard<std::mutex> lock(mutex_);
  closing_ = true;
  changed_.notify_all();
}

bool Group::abandon(int milliseconds_left) {
  fail(make_failure("internal", settings_.rank, "the process is ending"));
  std::unique_lock<std::mutex> lock(mutex_);
  closing_ = true;
  handing_over_ = 0;
  changed_.notify_all();
  return changed_.wait_for(lock, milliseconds(milliseconds_left), [this] { return over_; });
}

// ---- dispatcher's thread -----------------------------------------------------------------------------------
void Group::hand_over(const BatchPtr& batch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  batch->started_ms = now_ms();
  queue_.push_back(batch);
  unfinished_.push_back(batch);
  handing_over_--;
  changed_.notify_all();
}

FailurePtr Group::order_behind(const BatchPtr& batch, cudaStream_t compute) {
  std::unique_lock<std::mutex> lock(mutex_);
  // A moment, unless NCCL is connecting ranks for the first time.
  if (batch) changed_.wait(lock, [&] { return batch->state != Batch::kQueued || failure_; });
  if (batch && batch->state == Batch::kEnded) return nullptr;
  if (failure_) return failure_;
  if (batch && batch->end) cudaStreamWaitEvent(compute, batch->end, 0);
  return nullptr;
}

FailurePtr Group::failure() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

// ---- the group's thread ------------------------------------------------------------------------------------
void Group::run() {
  cudaSetDevice(device_properties().index);
  prctl(PR_SET_NAME, "nccl");  // what NCCL starts for itself takes this name, and may stay
  const FailurePtr problem = connect();
  prctl(PR_SET_NAME, "ds-comm");
  if (problem) fail(problem);
  if (failed_) end_failed();
  events_.connected(failure());
  for (;;) {
    BatchPtr batch;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto something = [this] { return !queue_.empty() || (failure_ && (comm_ || !unfinished_.empty())) || (closing_ && handing_over_ <= 0); };
      if (!something()) {
        if (unfinished_.empty()) changed_.wait(lock, something);
        else changed_.wait_for(lock, milliseconds(kWatchMs), something);
      }
      if (!failure_ && !queue_.empty()) {
        batch = queue_.front();
        queue_.pop_front();
      } else if (!failure_ && closing_ && handing_over_ <= 0) {
        if (unfinished_.empty()) break;
        changed_.wait_for(lock, milliseconds(kWatchMs), [this] { return unfinished_.empty() || failure_; });
      } else if (failure_ && closing_ && handing_over_ <= 0 && !comm_ && unfinished_.empty()) {
        break;
      }
    }
    if (batch) {
      const FailurePtr refused = launch(*batch);
      if (refused) fail(refused);
      if (!failed_) ended(batch);
    } else if (failed_) {
      end_failed();
    } else {
      watch();
    }
    if (failed_ && batch) end_failed();
  }
  disconnect();
  const std::lock_guard<std::mutex> lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

FailurePtr Group::connect() {
  std::string reason;
  nccl_ = nccl::table(&reason);
  if (!nccl_) return make_failure("rendezvous", settings_.rank, reason);
  int least = 0, greatest = 0;
  cudaDeviceGetStreamPriorityRange(&least, &greatest);
  // Above compute: a collective that others wait for should not queue behind blocks of a long kernel.
  cudaError_t error = cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest);
  if (error == cudaSuccess) error = cudaMalloc(&token_, 256);
  if (error == cudaSuccess) error = cudaMemsetAsync(token_, 0, 256, stream_);
  if (error != cudaSuccess)
    return make_failure("rendezvous", settings_.rank, std::string("the group's stream can't be made: ") + cudaGetErrorString(error));
  nccl::Config config;
  config.blocking = 0;
  const int result = settle(nccl_->init(&comm_, settings_.size, settings_.id, settings_.rank, &config));
  if (failed_ || result == nccl::kSuccess) return nullptr;
  return nccl_failure("NCCL can't connect the ranks", result);
}

// Waits until a call of the non-blocking communicator has gone through, or the group has failed.
int Group::settle(int result) {
  for (int spins = 0; result == nccl::kInProgress && !failed_; spins++) {
    if (spins > 200) std::this_thread::sleep_for(std::chrono::microseconds(spins > 2000 ? 1000 : 20));
    int state = nccl::kSuccess;
    const int asked = nccl_->async_error(comm_, &state);
    result = asked == nccl::kSuccess ? state : asked;
  }
  return result;
}

FailurePtr Group::nccl_failure(const char* what, int result) {
  const char* detail = nccl_->last_error(comm_);
  return make_failure("internal", settings_.rank,
                      std::string(what) + ": " + nccl_->error_string(result) + (detail && *detail ? std::string(" (") + detail + ")" : "") +
                          "; NCCL_DEBUG=INFO shows more");
}

FailurePtr Group::launch(Batch& batch) {
  if (batch.ready) {
    cudaStreamWaitEvent(stream_, batch.ready, 0);
    give_event(batch.ready);
    batch.ready = nullptr;
  }
  const bool grouped = batch.operations.size() > 1;
  int result = grouped ? nccl_->group_start() : int(nccl::kSuccess);
  for (size_t i = 0; i < batch.operations.size() && result == nccl::kSuccess; i++) {
    result = issue(batch.operations[i]);
    if (grouped && result == nccl::kInProgress) result = nccl::kSuccess;
  }
  if (grouped) {
    const int closed = nccl_->group_end();
    if (result == nccl::kSuccess) result = closed;
  }
  result = settle(result);
  if (failed_) return nullptr;
  if (result != nccl::kSuccess) return nccl_failure("NCCL refused a collective", result);
  const cudaEvent_t end = take_event();
  const cudaError_t error = cudaEventRecord(end, stream_);
  if (error != cudaSuccess) return make_failure("internal", settings_.rank, std::string("CUDA reports: ") + cudaGetErrorString(error));
  const std::lock_guard<std::mutex> lock(mutex_);
  batch.end = end;
  batch.state = Batch::kRunning;
  changed_.notify_all();
  return nullptr;
}

// One operation on the group's stream. No elements: nothing to do, on every rank alike.
int Group::issue(const Operation& op) {
  const size_t count = size_t(op.count);
  const int type = nccl_type(op.dtype);
  const int reduction = kReductions[op.reduce & 3];
  const int64_t slice = op.count * kElementBytes[op.dtype];
  if (op.kind != OpKind::kBarrier && count == 0) return nccl::kSuccess;
  switch (op.kind) {
    case OpKind::kBarrier: return nccl_->all_reduce(token_, token_, 1, nccl::kInt32, nccl::kMax, comm_, stream_);
    case OpKind::kAllReduce: {
      // Two addends have one sum. With more the order of additions matters: reduce-scatter and all-gather give the same bits as
      // these two calls alone, as sharded gradients need them.
      if (settings_.size <= 2 || count % size_t(settings_.size) != 0)
        return nccl_->all_reduce(op.input, op.output, count, type, reduction, comm_, stream_);
      const size_t part = count / size_t(settings_.size);
      char* own = op.output + int64_t(part) * kElementBytes[op.dtype] * settings_.rank;
      const int scattered = settle(nccl_->reduce_scatter(op.input, own, part, type, reduction, comm_, stream_));
      if (scattered != nccl::kSuccess) return scattered;
      return nccl_->all_gather(own, op.output, part, type, comm_, stream_);
    }
    case OpKind::kReduceScatter: return nccl_->reduce_scatter(op.input, op.output, count, type, reduction, comm_, stream_);
    case OpKind::kAllGather: return nccl_->all_gather(op.input, op.output, count, type, comm_, stream_);
    case OpKind::kBroadcast: return nccl_->broadcast(op.input, op.output, count, type, op.peer, comm_, stream_);
    case OpKind::kAllToAll: {
      int result = nccl_->group_start();
      for (int r = 0; r < settings_.size && result == nccl::kSuccess; r++) {
        result = nccl_->send(op.input + r * slice, count, type, r, comm_, stream_);
        if (result == nccl::kSuccess || result == nccl::kInProgress) result = nccl_->recv(op.output + r * slice, count, type, r, comm_, stream_);
        if (result == nccl::kInProgress) result = nccl::kSuccess;
      }
      const int closed = nccl_->group_end();
      return result == nccl::kSuccess ? closed : result;
    }
    case OpKind::kSend: return nccl_->send(op.input, count, type, op.peer, comm_, stream_);
    case OpKind::kRecv: return nccl_->recv(op.output, count, type, op.peer, comm_, stream_);
  }
  return nccl::kSuccess;
}

// Reports the end of a batch once the device has come to it.
void Group::ended(const BatchPtr& batch) {
  const cudaEvent_t event = dispatcher_event();
  cudaEventRecord(event, stream_);
  dispatcher_when(event, [self = shared_from_this(), batch] {
    {
      const std::lock_guard<std::mutex> lock(self->mutex_);
      // Of a group that failed nobody knows what was still exchanged: end_failed() reports.
      if (batch->state == Batch::kFailed || self->failure_) return;
      batch->state = Batch::kEnded;
      self->unfinished_.remove(batch);
      self->by_work_.erase(std::remove(self->by_work_.begin(), self->by_work_.end(), batch), self->by_work_.end());
      if (batch->end) self->events_pool_.push_back(batch->end);
      // A wait() in the dispatcher's queue looks at the state first.
      batch->end = nullptr;
      // Before the lock is let go: close() may end the group as soon as nothing is unfinished.
      for (const Operation& operation : batch->operations) self->events_.done(operation.work, nullptr);
      self->changed_.notify_all();
    }
  });
}

// While something goes on: errors that NCCL found in the background, and work that never ends.
void Group::watch() {
  if (!comm_) return;
  int state = nccl::kSuccess;
  const int asked = nccl_->async_error(comm_, &state);
  if (asked != nccl::kSuccess) state = asked;
  BatchPtr oldest;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!unfinished_.empty()) oldest = unfinished_.front();
  }
  if (state != nccl::kSuccess && state != nccl::kInProgress) events_.trouble(nccl_failure("NCCL reports an error", state));
  if (oldest && now_ms() - oldest->started_ms > settings_.silence_ms + kLateMs)
    fail(make_failure("peer_lost", settings_.rank, "a collective has not ended within " + std::to_string(settings_.silence_ms / 1000) + " s"));
}

// Takes the group off the device, then reports everything that has not ended: from then on its memory is nobody's.
void Group::end_failed() {
  if (comm_) {
    nccl_->abort(comm_);
    comm_ = nullptr;
    for (int waited = 0; waited < kAbortMs && cudaStreamQuery(stream_) == cudaErrorNotReady; waited++) std::this_thread::sleep_for(milliseconds(1));
  }
  std::list<BatchPtr> failed;
  FailurePtr failure;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failed.swap(unfinished_);
    queue_.clear();
    by_work_.clear();
    for (const BatchPtr& batch : failed) {
      batch->state = Batch::kFailed;
      for (cudaEvent_t* event : {&batch->ready, &batch->end}) {
        if (*event) events_pool_.push_back(*event);
        *event = nullptr;
      }
    }
    failure = failure_;
    changed_.notify_all();
  }
  for (const BatchPtr& batch : failed)
    for (const Operation& operation : batch->operations) events_.done(operation.work, failure);
}

void Group::disconnect() {
  if (comm_) {
    int result = nccl_->finalize(comm_);
    for (int waited = 0; waited < kFinalizeMs && result == nccl::kInProgress; waited++) {
      std::this_thread::sleep_for(milliseconds(1));
      if (nccl_->async_error(comm_, &result) != nccl::kSuccess) break;
    }
    if (result == nccl::kSuccess) nccl_->destroy(comm_);
    else nccl_->abort(comm_);
    comm_ = nullptr;
  }
  if (token_) cudaFree(token_);
  if (stream_) cudaStreamDestroy(stream_);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (cudaEvent_t event : events_pool_) cudaEventDestroy(event);
  events_pool_.clear();
}

cudaEvent_t Group::take_event() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!events_pool_.empty()) {
      const cudaEvent_t event = events_pool_.back();
      events_pool_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  return event;
}

void Group::give_event(cudaEvent_t event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  events_pool_.push_back(event);
}

}  // namespace comm
}  // namespace ds
