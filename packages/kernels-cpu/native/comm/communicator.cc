#include "communicator.h"

#include <pthread.h>
#include <signal.h>

#include "collectives.h"
#include "split.h"

namespace ds {
namespace comm {

FailurePtr CommWork::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return finished_; });
  return failure_;
}

void CommWork::finish(FailurePtr failure) {
  std::lock_guard<std::mutex> lock(mutex_);
  finished_ = true;
  failure_ = std::move(failure);
  changed_.notify_all();
}

Communicator::Communicator(MeshMaker make, Events events) : events_(std::move(events)) {
  sigset_t all, before;  // the process's signals stay with Node's thread
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, make = std::move(make)] { run(make); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Communicator::~Communicator() {
  if (thread_.joinable()) thread_.join();
}

uint64_t Communicator::enqueue(Job job) {
  std::lock_guard<std::mutex> lock(mutex_);
  job.id = ++last_work_;
  job.after = stream_position();
  job.work = std::make_shared<CommWork>();
  works_[job.id] = job.work;
  queue_.push_back(std::move(job));
  changed_.notify_all();
  if (serving_p2p_) mesh_->ring();
  return last_work_;
}

uint64_t Communicator::submit(const Operation& op) { return enqueue({op, 0, 0, nullptr, 0, 0, {}}); }

uint64_t Communicator::submit_split(int color, int64_t key) {
  Operation op;
  op.kind = OpKind::kSplit;
  return enqueue({op, 0, 0, nullptr, color, key, {}});
}

std::shared_ptr<StreamWork> Communicator::take(uint64_t id) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = works_.find(id);
  if (found == works_.end()) return nullptr;
  std::shared_ptr<StreamWork> work = found->second;
  works_.erase(found);
  return work;
}

void Communicator::close() {
  std::lock_guard<std::mutex> lock(mutex_);
  closing_ = true;
  changed_.notify_all();
}

bool Communicator::abandon(int milliseconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  stop_ = true;
  closing_ = true;
  changed_.notify_all();
  if (mesh_) mesh_->stop();
  return changed_.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return ended_; });
}

void Communicator::run(MeshMaker make) {
  pthread_setname_np(pthread_self(), "ds-comm");
  try {
    std::unique_ptr<Mesh> mesh = make(stop_);
    std::lock_guard<std::mutex> lock(mutex_);
    mesh_ = std::move(mesh);
  } catch (const Fault& fault) {
    failure_ = failure_of(fault, nullptr);
  }
  events_.connected(mesh_ ? mesh_->rank() : -1, mesh_ ? mesh_->size() : 0, failure_);

  Job job;
  while (next(&job)) {
    if (failure_) {
      settle(job, failure_);
      continue;
    }
    in_flight_ = {job};
    try {
      perform(job);
    } catch (const Fault& fault) {
      failure_ = failure_of(fault, &job);
      mesh_->tell_failure({fault.kind, fault.peer, failure_->text});
      for (const Job& lost : in_flight_) settle(lost, failure_);
    }
  }
  if (mesh_ && !failure_ && !stop_) mesh_->tell_goodbye();
  events_.closed();
  std::lock_guard<std::mutex> lock(mutex_);
  mesh_.reset();
  ended_ = true;
  changed_.notify_all();
}

// False when the communicator is closing and nothing is left.
bool Communicator::next(Job* job) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !queue_.empty() || closing_; });
  if (queue_.empty()) return false;
  *job = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

void Communicator::perform(Job& job) {
  await_stream(job);
  job.begun = mesh_->met = Clock::now();
  if (job.op.is_p2p()) return perform_p2p(job);
  job.op.site = [this, id = job.id] { return events_.site(id); };
  uint64_t sequence = ++sequence_;
  if (job.op.kind == OpKind::kSplit) {
    std::unique_ptr<Mesh> group = split_mesh(*mesh_, job.op, sequence, job.color, job.key);
    in_flight_.clear();
    return settle(job, nullptr, std::move(group));
  }
  run_collective(*mesh_, job.op, sequence);
  in_flight_.clear();
  settle(job, nullptr);
}

void Communicator::await_stream(const Job& job) {
  if (!stream_wait_until(job.after)) throw Fault{FaultKind::kInternal, -1, "the compute stream was stopped"};
  // What this rank would contribute was never computed: the others must hear that, not get rubbish.
  if (stream_failed())
    throw Fault{FaultKind::kPeerLost, mesh_->rank(),
                format("rank %d can't take part in %s: its own computation has failed before", mesh_->rank(),
                       describe(header_of(job.op, sequence_ + 1)).c_str())};
}

// The next queued call if it is a send or receive whose turn on the compute stream has come.
bool Communicator::next_p2p(Job* job) {
  std::lock_guard<std::mutex> lock(mutex_);
  mesh_->check_ms = 1000;
  if (queue_.empty() || !queue_.front().op.is_p2p()) return false;
  if (stream_executed() < queue_.front().after) {
    mesh_->check_ms = 1;
    return false;
  }
  *job = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

void Communicator::perform_p2p(Job& first) {
  PointToPoint transfers(*mesh_);
  auto add = [&](const Job& job) {
    transfers.add(job.op, sequence_, [this, job] {
      for (size_t i = 0; i < in_flight_.size(); i++)
        if (in_flight_[i].id == job.id) in_flight_.erase(in_flight_.begin() + static_cast<ptrdiff_t>(i));
      settle(job, nullptr);
    });
  };
  add(first);
  serving_p2p_ = true;
  std::string what = describe(header_of(first.op, sequence_));
  try {
    mesh_->drive(what, [&](bool* moved) {
      Job more;
      while (next_p2p(&more)) {
        more.begun = Clock::now();
        in_flight_.push_back(more);
        add(more);
      }
      transfers.pump(moved);
      return transfers.empty();
    });
  } catch (...) {
    serving_p2p_ = false;
    throw;
  }
  serving_p2p_ = false;
}

void Communicator::settle(const Job& job, FailurePtr failure, std::unique_ptr<Mesh> group) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure) works_.erase(job.id);
  }
  job.work->finish(failure);
  if (job.op.kind == OpKind::kSplit)
    events_.split(job.id, failure, std::move(group));
  else
    events_.done(job.id, failure, timing_of(job));
}

Timing Communicator::timing_of(const Job& job) const {
  if (job.begun == Clock::time_point()) return {};
  const auto ms = [](Clock::time_point at) { return std::chrono::duration<double, std::milli>(at.time_since_epoch()).count(); };
  return {ms(job.begun), ms(job.op.is_p2p() ? job.begun : mesh_->met), ms(Clock::now())};
}

FailurePtr Communicator::failure_of(const Fault& fault, const Job* job) const {
  static const char* const kNames[] = {"", "peer_lost", "mismatch", "rendezvous", "internal"};
  auto failure = std::make_shared<Failure>();
  failure->kind = kNames[static_cast<int>(fault.kind)];
  failure->text = fault.text;
  if (job != nullptr) failure->op = describe(header_of(job->op, sequence_));
  failure->rank = mesh_ ? mesh_->rank() : -1;
  failure->peer = fault.peer;
  return failure;
}

}  // namespace comm
}  // namespace ds
