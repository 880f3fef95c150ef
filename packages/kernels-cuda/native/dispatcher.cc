#include "dispatcher.h"

#include <sys/prctl.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "completion.h"
#include "device.h"
#include "graphs.h"
#include "registry.h"
#include "staging.h"

namespace ds {
namespace {

// ---- commands ----------------------------------------------------------------------------------------------
struct KernelCommand {
  int kernel, n_in, n_out, n_attrs;
};
struct WriteCommand {
  void* target;
  void* chunk;
  size_t bytes;
};
struct ReadCommand {
  ReadRequest* request;
};
struct ForgiveCommand {
  FailurePtr failure;
};
struct DrainCommand {
  std::function<void()> done;
};
struct GraphsCommand {
  bool on;
};
using Command = std::variant<std::monostate, KernelCommand, WriteCommand, ReadCommand, Task, ForgiveCommand, DrainCommand, GraphsCommand>;

struct Slot {
  Command command;
  std::vector<View> views;  // keeps the room of the largest launch it had
  double attrs[kMaxAttrs];
};

// Tells the processor that this is a loop that waits.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A ring with one producer and one consumer. Each sleeps only when it has found nothing to do for a while.
constexpr uint64_t kSlots = 2048;
Slot* slots;
std::atomic<uint64_t> written{0}, taken{0};
std::atomic<uint64_t> settled{0};  // commands that a read found done
// What a thread may wait on is never destroyed: process.exit() runs destructors while the threads are still there.
std::mutex& sleep_mutex = *new std::mutex;
std::condition_variable& woken = *new std::condition_variable;
std::atomic<bool> consumer_sleeps{false}, producer_sleeps{false}, stopping{false};
std::thread& thread = *new std::thread;
cudaStream_t compute;
Graphs& graphs = *new Graphs;

// ---- failures ----------------------------------------------------------------------------------------------
FailurePtr& failed = *new FailurePtr;  // of the dispatcher's thread
std::mutex& poison_mutex = *new std::mutex;
FailurePtr& poison = *new FailurePtr;  // for good
std::atomic<bool> poisoned{false};

constexpr const char* kNoPinnedMemory = "the host has no memory left to pin for a copy from the device";

FailurePtr make_failure(const char* kind, std::string op, std::string text) {
  auto failure = std::make_shared<Failure>();
  failure->kind = kind;
  failure->op = std::move(op);
  failure->text = std::move(text);
  return failure;
}

FailurePtr current_failure() {
  if (poisoned) {
    const std::lock_guard<std::mutex> lock(poison_mutex);
    return poison;
  }
  return failed;
}

void fail(FailurePtr failure) {
  if (failure->kind == "kernel") failed = std::move(failure);
  else dispatcher_poison(std::move(failure));
}

// Errors of the device itself (an illegal address, a lost GPU) never go away: every later call would report them.
bool check_device(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return true;
  const bool refused = error == cudaErrorInvalidConfiguration || error == cudaErrorInvalidValue || error == cudaErrorLaunchOutOfResources ||
                       error == cudaErrorNoKernelImageForDevice || error == cudaErrorMemoryAllocation;
  fail(make_failure(refused ? "kernel" : "internal", op, std::string("CUDA reports: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")"));
  return false;
}

// ---- execution ---------------------------------------------------------------------------------------------
// What has been captured runs before anything that is not captured, and before what waits for it.
void flush_graph() {
  const bool usable = !current_failure();
  const cudaError_t error = graphs.flush(compute, usable);
  if (error != cudaSuccess && usable)
    fail(make_failure("internal", "graph", std::string("CUDA reports: ") + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")"));
}

// A kernel and its shapes; which memory and which numbers it gets does not matter to a graph.
uint64_t fingerprint(const KernelCommand& k, const Slot& slot) {
  uint64_t hash = uint64_t(k.kernel) + 1;
  for (int i = 0; i < k.n_in + k.n_out; i++) hash = (hash ^ uint64_t(slot.views[i].numel) ^ uint64_t(slot.views[i].dtype) << 56) * 0x100000001B3u;
  return hash;
}

void run(const KernelCommand& k, Slot& slot) {
  if (current_failure()) return;
  const KernelEntry& entry = kernel_entry(k.kernel);
  graphs.before_launch(compute, fingerprint(k, slot));
  const View* views = slot.views.data();
  const Call call = {views, k.n_in, views + k.n_in, k.n_out, slot.attrs, k.n_attrs, compute};
  const char* text = entry.run(call);
  if (text) fail(make_failure("kernel", entry.name, text));
  check_device(entry.name);
}

void run(const WriteCommand& w, Slot&) {
  if (current_failure()) return staging().give(w.chunk);
  graphs.before_launch(compute, w.bytes);
  cudaMemcpyAsync(w.target, w.chunk, w.bytes, cudaMemcpyDefault, compute);  // a buffer may be the host's
  if (graphs.capturing()) return graphs.hold(w.chunk);
  const cudaEvent_t event = completion().event();
  cudaEventRecord(event, compute);
  completion().when(event, [chunk = w.chunk](cudaError_t) { staging().give(chunk); });
  check_device("write");
}

void finish_read(ReadRequest* request, cudaError_t state) {
  if (state != cudaSuccess && !request->failure) {
    request->failure = make_failure("internal", "read", std::string("CUDA reports: ") + cudaGetErrorString(state) + " (" + cudaGetErrorName(state) + ")");
    dispatcher_poison(request->failure);
  }
  // A group that was given up ended its collectives early: what they should have written is not what was read.
  if (poisoned && !request->failure) request->failure = current_failure();
  std::string op;
  const std::string fault = take_fault(&op);
  if (!fault.empty() && !request->failure) request->failure = make_failure("kernel", op, fault);
  if (!request->failure) settled = request->place;
  request->done(request);
}

void run(const ReadCommand& r, Slot&) {
  flush_graph();
  ReadRequest* request = r.request;
  request->failure = current_failure();
  if (request->failure) return request->done(request);
  const char* source = static_cast<const char*>(request->source);
  char* target = static_cast<char*>(request->target);
  size_t left = request->bytes;
  do {
    const size_t bytes = left < Staging::kChunk ? left : Staging::kChunk;
    const bool last = bytes == left;
    void* chunk = bytes ? staging().take(bytes) : nullptr;
    if (bytes && !chunk && source == request->source) {
      request->failure = make_failure("kernel", "read", kNoPinnedMemory);
      return request->done(request);
    }
    if (bytes) cudaMemcpyAsync(chunk, source, bytes, cudaMemcpyDefault, compute);
    const cudaEvent_t event = completion().event();
    cudaEventRecord(event, compute);
    completion().when(event, [=](cudaError_t state) {
      if (bytes) {
        if (state == cudaSuccess) std::memcpy(target, chunk, bytes);
        staging().give(chunk);
      }
      if (last) finish_read(request, state);
    });
    source += bytes, target += bytes, left -= bytes;
  } while (left > 0);
  check_device("read");
}

void run(const Task& task, Slot&) {
  flush_graph();
  const FailurePtr before = current_failure();
  FailurePtr failure = task(compute, before != nullptr);
  if (failure && !before) fail(std::move(failure));
}

void run(const ForgiveCommand& f, Slot&) {
  if (failed == f.failure) failed = nullptr;
}

void run(const GraphsCommand& g, Slot&) {
  flush_graph();
  graphs.enable(g.on);
}

void run(const DrainCommand& d, Slot&) {
  flush_graph();
  const cudaEvent_t event = completion().event();
  cudaEventRecord(event, compute);
  completion().when(event, [done = d.done](cudaError_t) { done(); });
}

void run(const std::monostate&, Slot&) {}

// Waits for the command number `at`; false: there will be none. Waking a thread whose processor has gone to sleep takes a fifth of a
// millisecond, and a step begins with one: as long as somebody waits for the device, and shortly after, this thread only naps.
bool await_command(uint64_t at) {
  using Clock = std::chrono::steady_clock;
  const auto arrived = [at] { return written.load(std::memory_order_acquire) != at; };
  for (int spins = 0; spins < 2000; spins++, relax())
    if (arrived()) return true;
  const auto begin = Clock::now();
  for (auto wanted = begin; Clock::now() - wanted < std::chrono::milliseconds(2);) {
    if (arrived()) return true;
    if (stopping) return false;
    // JavaScript is doing something else: the device should not wait for it with work at hand.
    if (graphs.capturing() && Clock::now() - begin > std::chrono::milliseconds(1)) flush_graph();
    if (completion().waits()) wanted = Clock::now();
    std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
  if (graphs.capturing()) flush_graph();
  std::unique_lock<std::mutex> lock(sleep_mutex);
  consumer_sleeps = true;
  woken.wait(lock, [at] { return stopping || written.load() != at; });
  consumer_sleeps = false;
  return arrived();
}

void consume(int device) {
  cudaSetDevice(device);
  prctl(PR_SET_TIMERSLACK, 1000UL);  // so that a nap is short
  for (;;) {
    const uint64_t at = taken.load(std::memory_order_relaxed);
    if (!await_command(at)) return;
    Slot& slot = slots[at % kSlots];
    std::visit([&](auto& command) { run(command, slot); }, slot.command);
    slot.command = std::monostate{};
    taken.store(at + 1);
    if (producer_sleeps) {
      const std::lock_guard<std::mutex> lock(sleep_mutex);
      woken.notify_all();
    }
  }
}

// ---- the producer's side -----------------------------------------------------------------------------------
Slot& next_slot() {
  const uint64_t at = written.load(std::memory_order_relaxed);
  if (at - taken.load(std::memory_order_acquire) == kSlots) {
    std::unique_lock<std::mutex> lock(sleep_mutex);
    producer_sleeps = true;
    woken.wait(lock, [at] { return at - taken.load() < kSlots; });
    producer_sleeps = false;
  }
  return slots[at % kSlots];
}

void publish() {
  written.fetch_add(1, std::memory_order_seq_cst);
  if (consumer_sleeps) {
    const std::lock_guard<std::mutex> lock(sleep_mutex);
    woken.notify_all();
  }
}

void push(Command command) {
  next_slot().command = std::move(command);
  publish();
}

}  // namespace

void dispatcher_start() {
  slots = new Slot[kSlots];
  const int device = device_properties().index;
  cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
  completion().start(device);
  thread = std::thread(consume, device);
}

bool dispatcher_stop(int milliseconds) {
  if (!slots) return true;
  dispatcher_poison(make_failure("internal", "stop", "the backend was shut down"));
  stopping = true;
  {
    const std::lock_guard<std::mutex> lock(sleep_mutex);
    woken.notify_all();
  }
  thread.join();
  for (int waited = 0; cudaStreamQuery(compute) == cudaErrorNotReady; waited++) {
    if (waited == milliseconds) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  completion().stop();
  return true;
}

Launch dispatcher_launch(int kernel, int n_in, int n_out, int n_attrs) {
  Slot& slot = next_slot();
  slot.command = KernelCommand{kernel, n_in, n_out, n_attrs};
  slot.views.resize(size_t(n_in + n_out));
  return {slot.views.data(), slot.attrs};
}

void dispatcher_commit() { publish(); }

bool dispatcher_write(void* target, const void* bytes, size_t count) {
  for (size_t at = 0; at < count; at += Staging::kChunk) {
    const size_t piece = count - at < Staging::kChunk ? count - at : Staging::kChunk;
    void* chunk = staging().take(piece);
    if (!chunk) return false;
    std::memcpy(chunk, static_cast<const char*>(bytes) + at, piece);
    push(WriteCommand{static_cast<char*>(target) + at, chunk, piece});
  }
  return true;
}

void dispatcher_graphs(bool on) { push(GraphsCommand{on}); }
void dispatcher_read(ReadRequest* request) {
  request->place = written + 1;
  push(ReadCommand{request});
}
bool dispatcher_settled() { return settled == written && !poisoned; }
void dispatcher_run(Task task) { push(std::move(task)); }
void dispatcher_forgive(const FailurePtr& failure) { push(ForgiveCommand{failure}); }

void dispatcher_poison(FailurePtr failure) {
  const std::lock_guard<std::mutex> lock(poison_mutex);
  if (poisoned) return;
  poison = std::move(failure);
  poisoned = true;
}

void dispatcher_when(cudaEvent_t event, std::function<void()> function) {
  completion().when(event, [function = std::move(function)](cudaError_t) { function(); });
}

cudaStream_t dispatcher_stream() { return compute; }

cudaEvent_t dispatcher_event() { return completion().event(); }

void dispatcher_drain() {
  if (!slots) return;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  push(DrainCommand{[&] {
    const std::lock_guard<std::mutex> lock(mutex);
    done = true;
    changed.notify_one();
  }});
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return done; });
}

}  // namespace ds
