// The addon's functions, as native.ts declares them. Everything runs on JavaScript's thread except ReadRequest::done.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "allocator.h"
#include "binding.h"
#include "file_read.h"
#include "kernel.h"
#include "pool.h"
#include "registry.h"
#include "scratch.h"
#include "stream.h"

namespace ds {
namespace {

constexpr size_t kCommandWords = 4096;
constexpr size_t kReadAtOnce = 256 << 10;  // a smaller read of an idle stream is answered without a round trip

constexpr int64_t kElementBytes[] = {4, 2, 2, 4, 8, 1, 1, 1};  // by dtype code
constexpr int kDTypes = sizeof kElementBytes / sizeof *kElementBytes;

// What one environment of Node holds. The process has one stream, so one environment at a time may load the addon.
struct Addon {
  Napi::ObjectReference command_owner;
  double* command = nullptr;
  napi_threadsafe_function completed = nullptr;
  int pending_reads = 0;
  int threads = 0;
};
std::atomic<bool> loaded{false};

Addon& addon(const Napi::CallbackInfo& info) { return *static_cast<Addon*>(info.Data()); }

void raise(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  error.ThrowAsJavaScriptException();
}

double number(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().DoubleValue(); }

void drain() { stream_wait_until(stream_position()); }

// ---- memory --------------------------------------------------------------------------------------------
Napi::Value Alloc(const Napi::CallbackInfo& info) {
  const double bytes = number(info, 0);
  const bool shared = info[1].ToBoolean();
  std::string reason;
  const bool sane = bytes >= 0 && bytes <= 9007199254740992.0;
  const int handle = sane ? allocator().allocate(size_t(bytes), shared, drain, &reason) : 0;
  if (handle) return Napi::Number::New(info.Env(), handle);
  if (!sane) raise(info.Env(), "BAD_ARGUMENT", "a buffer can't have " + std::to_string(bytes) + " bytes");
  else raise(info.Env(), "OUT_OF_MEMORY", reason);
  return info.Env().Undefined();
}

void Free(const Napi::CallbackInfo& info) {
  const int handle = int(number(info, 0));
  if (!allocator().free(handle)) raise(info.Env(), "BAD_HANDLE", "buffer " + std::to_string(handle) + " is not allocated");
}

// The address of `length` bytes of a buffer; throws and returns nullptr where they don't exist. No bytes of buffer 0 always do:
// reading them is how JavaScript waits for the stream.
char* range(Napi::Env env, int handle, double offset, double length, const char* what) {
  static char nothing;
  if (handle == 0 && length == 0) return &nothing;
  const Buffer* buffer = allocator().find(handle);
  if (!buffer) {
    raise(env, "BAD_HANDLE", std::string(what) + ": buffer " + std::to_string(handle) + " is not allocated");
    return nullptr;
  }
  if (!(offset >= 0 && length >= 0 && offset + length <= double(buffer->bytes))) {
    raise(env, "BAD_ARGUMENT",
          std::string(what) + ": bytes " + std::to_string((long long)offset) + " to " + std::to_string((long long)(offset + length)) +
              " are not inside buffer " + std::to_string(handle) + " of " + std::to_string(buffer->bytes) + " bytes");
    return nullptr;
  }
  return static_cast<char*>(buffer->data) + size_t(offset);
}

Napi::Value Memory(const Napi::CallbackInfo& info) {
  const MemoryCounters counters = allocator().counters();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("live", double(counters.live));
  object.Set("reserved", double(counters.reserved));
  object.Set("peak", double(counters.peak));
  object.Set("workspace", double(scratch_bytes()));
  return object;
}

void ResetPeak(const Napi::CallbackInfo&) { allocator().reset_peak(); }

void Trim(const Napi::CallbackInfo&) {
  drain();
  allocator().trim();
  scratch_release();
}

// ---- kernels -------------------------------------------------------------------------------------------
Napi::Value OpId(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), kernel_id(info[0].As<Napi::String>().Utf8Value().c_str()));
}

Napi::Value OpDtypes(const Napi::CallbackInfo& info) {
  const int id = int(number(info, 0));
  const bool known = id >= 0 && id < kernel_count();
  return Napi::Number::New(info.Env(), known ? kernel_choice(id).dtypes : 0);
}

Napi::Value Kernels(const Napi::CallbackInfo& info) {
  Napi::Object levels = Napi::Object::New(info.Env());
  for (int id = 0; id < kernel_count(); id++)
    if (kernel_choice(id).run) levels.Set(kernel_name(id), isa_name(kernel_choice(id).isa));
  return levels;
}

// One view of the command area; false after an exception.
bool parse_view(Napi::Env env, const double*& words, const double* end, View* view, const char* op) {
  if (end - words < 4) return raise(env, "BAD_ARGUMENT", std::string(op) + ": the command is cut short"), false;
  const int handle = int(words[0]);
  const double offset = words[1];
  view->dtype = int32_t(words[2]);
  view->rank = int32_t(words[3]);
  words += 4;
  if (view->rank < 0 || view->rank > kMaxRank || view->dtype < 0 || view->dtype >= kDTypes || end - words < view->rank)
    return raise(env, "BAD_ARGUMENT", std::string(op) + ": a tensor has an unknown dtype or more than 6 dimensions"), false;
  view->numel = 1;
  for (int i = 0; i < view->rank; i++) {
    view->dims[i] = int64_t(words[i]);
    view->numel *= view->dims[i];
  }
  words += view->rank;
  view->data = range(env, handle, offset, double(view->numel * kElementBytes[view->dtype]), op);
  return view->data != nullptr;
}

void LaunchOp(const Napi::CallbackInfo& info) {
  const double* words = addon(info).command;
  const double* end = words + size_t(number(info, 0));
  const int op = int(words[0]), n_in = int(words[1]), n_out = int(words[2]), n_attrs = int(words[3]);
  words += 4;
  if (op < 0 || op >= kernel_count()) return raise(info.Env(), "BAD_ARGUMENT", "no op has number " + std::to_string(op));
  if (n_in + n_out > kMaxTensors || n_attrs > kMaxAttrs)
    return raise(info.Env(), "BAD_ARGUMENT", std::string(kernel_name(op)) + ": at most " + std::to_string(kMaxTensors) + " tensors and " + std::to_string(kMaxAttrs) + " attributes go to a kernel");
  const Launch launch = stream_launch(op, n_in, n_out, n_attrs);
  for (int i = 0; i < n_in + n_out; i++)
    if (!parse_view(info.Env(), words, end, &launch.views[i], kernel_name(op))) return;
  for (int i = 0; i < n_attrs; i++) launch.attrs[i] = words[i];
  stream_commit();
}

void SetThreads(const Napi::CallbackInfo& info) {
  const int n = std::max(1, std::min(int(number(info, 0)), kMaxThreads));
  addon(info).threads = n;
  stream_call([](void* count) { pool_set_threads(int(reinterpret_cast<intptr_t>(count))); }, reinterpret_cast<void*>(intptr_t(n)));
}

Napi::Value Threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), addon(info).threads); }

Napi::Value Isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), isa_name(isa_level())); }

// ---- host copies ---------------------------------------------------------------------------------------
void Write(const Napi::CallbackInfo& info) {
  const auto bytes = info[2].As<Napi::Uint8Array>();
  char* target = range(info.Env(), int(number(info, 0)), number(info, 1), double(bytes.ByteLength()), "write");
  if (target) stream_write(target, bytes.Data(), bytes.ByteLength());
}

// A promise that the stream answers. The bytes land in the JavaScript array itself, which `array` keeps alive.
struct PendingRead : ReadRequest {
  PendingRead(Napi::Env env, Addon& addon) : owner(addon), deferred(env) {}
  Addon& owner;
  Napi::Promise::Deferred deferred;
  Napi::Reference<Napi::Uint8Array> array;
};

void settle(PendingRead* read, Napi::Env env) {
  if (read->failure) {
    read->deferred.Reject(failure_error(env, *read->failure).Value());
    // It has been reported; what JavaScript queues from now on knows about it.
    if (read->failure->kind == "kernel") stream_forgive(read->failure);
  } else {
    read->deferred.Resolve(read->array.Value());
  }
}

void on_completed(napi_env env, napi_value, void*, void* data) {
  PendingRead* read = static_cast<PendingRead*>(data);
  if (env) {
    Napi::HandleScope scope(env);
    settle(read, env);
    if (--read->owner.pending_reads == 0) napi_unref_threadsafe_function(env, read->owner.completed);
  }
  delete read;
}

Napi::Value Read(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const double length = number(info, 2);
  const char* source = range(env, int(number(info, 0)), number(info, 1), length, "read");
  if (!source) return env.Undefined();
  Napi::Uint8Array array = Napi::Uint8Array::New(env, size_t(length));
  if (env.IsExceptionPending()) return env.Undefined();
  PendingRead* read = new PendingRead(env, addon(info));
  const Napi::Promise promise = read->deferred.Promise();
  read->array = Napi::Reference<Napi::Uint8Array>::New(array, 1);
  read->source = source;
  read->target = array.Data();
  read->bytes = size_t(length);
  if (read->bytes <= kReadAtOnce && stream_executed() == stream_position() && !stream_failed()) {
    std::memcpy(read->target, read->source, read->bytes);
    settle(read, env);
    delete read;
    return promise;
  }
  // While a read is pending it keeps the event loop alive.
  if (read->owner.pending_reads++ == 0) napi_ref_threadsafe_function(env, read->owner.completed);
  read->done = [](ReadRequest* request) {
    PendingRead* pending = static_cast<PendingRead*>(request);
    napi_call_threadsafe_function(pending->owner.completed, pending, napi_tsfn_nonblocking);
  };
  stream_read(read);
  return promise;
}

Napi::Value ReadSync(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const double length = number(info, 2);
  const char* source = range(env, int(number(info, 0)), number(info, 1), length, "read");
  if (!source) return env.Undefined();
  Napi::Uint8Array array = Napi::Uint8Array::New(env, size_t(length));
  if (env.IsExceptionPending()) return env.Undefined();
  ReadRequest read;
  read.source = source;
  read.target = array.Data();
  read.bytes = size_t(length);
  stream_read(&read);
  drain();
  if (read.failure) {
    if (read.failure->kind == "kernel") stream_forgive(read.failure);
    failure_error(env, *read.failure).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return array;
}

// The caller keeps the buffer until the answer.
Napi::Value ReadFile(const Napi::CallbackInfo& info) {
  const double bytes = number(info, 2);
  char* target = range(info.Env(), int(number(info, 0)), number(info, 1), bytes, "readFile");
  if (!target) return info.Env().Undefined();
  FileRead* read = new FileRead(info.Env(), target, size_t(bytes), int(number(info, 3)), int64_t(number(info, 4)));
  const Napi::Promise promise = read->promise();
  read->Queue();  // which deletes it in the end
  return promise;
}

void start_completions(Napi::Env env, Addon* addon) {
  const Napi::String name = Napi::String::New(env, "deepspeed-ts reads");
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, addon, on_completed, &addon->completed);
  napi_unref_threadsafe_function(env, addon->completed);
}

// Runs when the environment ends by itself or with its worker; process.exit() skips it, and threads then end with the process.
void shut_down(Addon* addon) {
  if (!stream_stop(10000)) return;  // a kernel or collective still runs: leave its memory alone
  allocator().clear();
  scratch_release();
  addon->command_owner.Reset();
  loaded.store(false);
}

}  // namespace

Napi::Error failure_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.text);
  error.Set("kind", failure.kind);
  error.Set("op", failure.op);
  error.Set("rank", double(failure.rank));
  error.Set("peer", double(failure.peer));
  return error;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  if (loaded.exchange(true)) {
    raise(env, "ALREADY_LOADED",
          "the CPU backend's native part is in use by another thread of this process. It has one stream and one memory: load "
          "@deepspeed-ts/kernels-cpu in one thread only, or use processes (the deepspeed launcher) instead of worker_threads");
    return exports;
  }
  Addon* self = new Addon;
  self->threads = default_threads();
  Napi::Float64Array command = Napi::Float64Array::New(env, kCommandWords);
  self->command = command.Data();
  self->command_owner = Napi::Persistent(command.As<Napi::Object>());
  start_completions(env, self);
  stream_start();
  env.AddCleanupHook(shut_down, self);

  const auto add = [&](const char* name, auto function) { exports.Set(name, Napi::Function::New(env, function, name, self)); };
  exports.Set("version", DS_VERSION);
  exports.Set("command", command);
  add("alloc", Alloc);
  add("free", Free);
  add("memory", Memory);
  add("resetPeak", ResetPeak);
  add("trim", Trim);
  add("opId", OpId);
  add("opDtypes", OpDtypes);
  add("kernels", Kernels);
  add("launch", LaunchOp);
  add("write", Write);
  add("read", Read);
  add("readSync", ReadSync);
  add("readFile", ReadFile);
  add("setThreads", SetThreads);
  add("threads", Threads);
  add("isa", Isa);
#ifdef DS_HAS_COMM
  init_comm(env, exports);  // last: cleanup hooks run in reverse, so collectives end before the stream that waits for them
#endif
  return exports;
}

}  // namespace ds

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return ds::Init(env, exports); }
NODE_API_MODULE(NODE_GYP_MODULE_NAME, init_addon)
