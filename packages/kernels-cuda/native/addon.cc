// The addon's functions, as native.ts declares them. Everything runs on JavaScript's thread except ReadRequest::done.
#include <atomic>
#include <unistd.h>

#include <cstring>
#include <string>

#include "allocator.h"
#include "binding.h"
#include "device.h"
#include "file_read.h"
#include "library.h"
#include "registry.h"

namespace ds {
namespace {

constexpr size_t kCommandWords = 4096;

// What one environment of Node holds. The process has one stream of each device, so one environment at a time may load the addon.
struct Addon {
  Napi::ObjectReference command_owner;
  double* command = nullptr;
  napi_threadsafe_function completed = nullptr;
  int pending_reads = 0;
};
std::atomic<bool> loaded{false};

Addon& addon(const Napi::CallbackInfo& info) { return *static_cast<Addon*>(info.Data()); }

double number(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().DoubleValue(); }

// ---- devices -------------------------------------------------------------------------------------------
Napi::Value Devices(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::string reason;
  const auto devices = list_devices(&reason);
  Napi::Array list = Napi::Array::New(env, devices.size());
  for (size_t i = 0; i < devices.size(); i++) {
    Napi::Object device = Napi::Object::New(env);
    device.Set("name", devices[i].name);
    device.Set("computeCapability", std::to_string(devices[i].major) + "." + std::to_string(devices[i].minor));
    device.Set("memory", double(devices[i].memory_bytes));
    device.Set("multiprocessors", double(devices[i].multiprocessors));
    list.Set(uint32_t(i), device);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("devices", list);
  if (!reason.empty()) result.Set("reason", reason);
  return result;
}

void Open(const Napi::CallbackInfo& info) {
  const bool first = !device_is_open();
  if (const char* text = open_device(int(number(info, 0)))) return raise(info.Env(), "NO_DEVICE", text);
  if (!first) return;
  std::string reason;
  if (!allocator().open(&reason)) return raise(info.Env(), "NO_DEVICE", reason);
  dispatcher_start();
}

bool opened(const Napi::CallbackInfo& info) {
  if (device_is_open()) return true;
  raise(info.Env(), "NO_DEVICE", "no GPU has been opened");
  return false;
}

Napi::Value Libraries(const Napi::CallbackInfo& info) {
  static const char* const lt[] = {"libcublasLt.so.13", "libcublasLt.so.12", nullptr};
  static const char* const dnn[] = {"libcudnn.so.9", nullptr};
  static const char* const nccl[] = {"libnccl.so.2", nullptr};
  struct Entry {
    const char* key;
    const char* variable;
    const char* const* names;
  };
  const Entry entries[] = {{"cublasLt", "DEEPSPEED_TS_CUBLASLT_PATH", lt},
                           {"cudnn", "DEEPSPEED_TS_CUDNN_PATH", dnn},
                           {"nccl", "DEEPSPEED_TS_NCCL_PATH", nccl}};
  Napi::Object result = Napi::Object::New(info.Env());
  for (const Entry& entry : entries) {
    const Library library = open_library(entry.variable, entry.names);
    Napi::Object found = Napi::Object::New(info.Env());
    if (library.handle) found.Set("path", library.path);
    else found.Set("reason", library.reason);
    result.Set(entry.key, found);
  }
  return result;
}

// ---- memory --------------------------------------------------------------------------------------------
Napi::Value Alloc(const Napi::CallbackInfo& info) {
  if (!opened(info)) return info.Env().Undefined();
  const double bytes = number(info, 0);
  const bool host = info.Length() > 1 && info[1].ToBoolean().Value();
  std::string reason;
  const bool sane = bytes >= 0 && bytes <= 9007199254740992.0;
  const int handle = sane ? allocator().allocate(size_t(bytes), host, dispatcher_drain, &reason) : 0;
  if (handle) return Napi::Number::New(info.Env(), handle);
  if (!sane) raise(info.Env(), "BAD_ARGUMENT", "a buffer can't have " + std::to_string(bytes) + " bytes");
  else raise(info.Env(), "OUT_OF_MEMORY", reason);
  return info.Env().Undefined();
}

void Free(const Napi::CallbackInfo& info) {
  const int handle = int(number(info, 0));
  if (!allocator().free(handle, dispatcher_drain)) raise(info.Env(), "BAD_HANDLE", "buffer " + std::to_string(handle) + " is not allocated");
}

Napi::Value Memory(const Napi::CallbackInfo& info) {
  const MemoryCounters counters = allocator().counters();
  size_t free_bytes = 0, total_bytes = 0;
  if (device_is_open()) device_memory(&free_bytes, &total_bytes);
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("live", double(counters.live));
  object.Set("reserved", double(counters.reserved));
  object.Set("peak", double(counters.peak));
  object.Set("host", double(counters.host));
  object.Set("workspace", double(workspace_bytes()));
  object.Set("deviceFree", double(free_bytes));
  object.Set("deviceTotal", double(total_bytes));
  return object;
}

void ResetPeak(const Napi::CallbackInfo&) { allocator().reset_peak(); }

void Trim(const Napi::CallbackInfo&) {
  dispatcher_drain();
  allocator().trim();
  release_workspace();
}

// ---- kernels -------------------------------------------------------------------------------------------
Napi::Value OpId(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), kernel_id(info[0].As<Napi::String>().Utf8Value().c_str()));
}

Napi::Value OpDtypes(const Napi::CallbackInfo& info) {
  const int id = int(number(info, 0));
  const bool known = id >= 0 && id < kernel_count();
  return Napi::Number::New(info.Env(), known ? kernel_entry(id).dtypes : 0);
}

Napi::Value Kernels(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env(), size_t(kernel_count()));
  for (int id = 0; id < kernel_count(); id++) names.Set(uint32_t(id), kernel_entry(id).name);
  return names;
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
  view->data = device_range(env, handle, offset, double(view->bytes()), op);
  return view->data != nullptr;
}

void LaunchOp(const Napi::CallbackInfo& info) {
  const double* words = addon(info).command;
  const double* end = words + size_t(number(info, 0));
  const int op = int(words[0]), n_in = int(words[1]), n_out = int(words[2]), n_attrs = int(words[3]);
  words += 4;
  if (op < 0 || op >= kernel_count()) return raise(info.Env(), "BAD_ARGUMENT", "no op has number " + std::to_string(op));
  if (n_in + n_out > kMaxTensors || n_attrs > kMaxAttrs)
    return raise(info.Env(), "BAD_ARGUMENT", std::string(kernel_entry(op).name) + ": at most " + std::to_string(kMaxTensors) + " tensors and " + std::to_string(kMaxAttrs) + " attributes go to a kernel");
  const Launch launch = dispatcher_launch(op, n_in, n_out, n_attrs);
  for (int i = 0; i < n_in + n_out; i++)
    if (!parse_view(info.Env(), words, end, &launch.views[i], kernel_entry(op).name)) return;
  for (int i = 0; i < n_attrs; i++) launch.attrs[i] = words[i];
  dispatcher_commit();
}

void SetGraphs(const Napi::CallbackInfo& info) {
  if (opened(info)) dispatcher_graphs(info[0].ToBoolean());
}

// ---- host copies ---------------------------------------------------------------------------------------
void Write(const Napi::CallbackInfo& info) {
  const auto bytes = info[2].As<Napi::Uint8Array>();
  void* target = device_range(info.Env(), int(number(info, 0)), number(info, 1), double(bytes.ByteLength()), "write");
  if (target && !dispatcher_write(target, bytes.Data(), bytes.ByteLength()))
    raise(info.Env(), "BAD_ARGUMENT", "write: the host has no memory left to pin for a copy of " + std::to_string(bytes.ByteLength()) + " bytes");
}

// A promise that the completion thread answers. The bytes land in the JavaScript array itself, which `array` keeps alive.
struct PendingRead : ReadRequest {
  PendingRead(Napi::Env env, Addon& addon) : owner(addon), deferred(env) {}
  Addon& owner;
  Napi::Promise::Deferred deferred;
  Napi::Reference<Napi::Uint8Array> array;
};

// It has been reported; what JavaScript queues from now on knows about it.
void forgive(const FailurePtr& failure) {
  if (failure->kind == "kernel") dispatcher_forgive(failure);
}

void on_completed(napi_env env, napi_value, void*, void* data) {
  PendingRead* read = static_cast<PendingRead*>(data);
  if (env) {
    Napi::HandleScope scope(env);
    if (read->failure) {
      read->deferred.Reject(failure_error(env, *read->failure).Value());
      forgive(read->failure);
    } else {
      read->deferred.Resolve(read->array.Value());
    }
    if (--read->owner.pending_reads == 0) napi_unref_threadsafe_function(env, read->owner.completed);
  }
  delete read;
}

Napi::Value Read(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const double length = number(info, 2);
  const void* source = device_range(env, int(number(info, 0)), number(info, 1), length, "read");
  if (!source) return env.Undefined();
  Napi::Uint8Array array = Napi::Uint8Array::New(env, size_t(length));
  if (env.IsExceptionPending()) return env.Undefined();
  if (length == 0 && dispatcher_settled()) {
    // Who asks only whether the device is through need not wait for threads to wake.
    const Napi::Promise::Deferred known(env);
    known.Resolve(array);
    return known.Promise();
  }
  PendingRead* read = new PendingRead(env, addon(info));
  const Napi::Promise promise = read->deferred.Promise();
  read->array = Napi::Reference<Napi::Uint8Array>::New(array, 1);
  read->source = source;
  read->target = array.Data();
  read->bytes = size_t(length);
  // While a read is pending it keeps the event loop alive.
  if (read->owner.pending_reads++ == 0) napi_ref_threadsafe_function(env, read->owner.completed);
  read->done = [](ReadRequest* request) {
    PendingRead* pending = static_cast<PendingRead*>(request);
    napi_call_threadsafe_function(pending->owner.completed, pending, napi_tsfn_nonblocking);
  };
  dispatcher_read(read);
  return promise;
}

struct SyncRead : ReadRequest {
  std::atomic<bool> finished{false};
};

Napi::Value ReadSync(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const double length = number(info, 2);
  const void* source = device_range(env, int(number(info, 0)), number(info, 1), length, "read");
  if (!source) return env.Undefined();
  Napi::Uint8Array array = Napi::Uint8Array::New(env, size_t(length));
  if (env.IsExceptionPending()) return env.Undefined();
  SyncRead read;
  read.source = source;
  read.target = array.Data();
  read.bytes = size_t(length);
  read.done = [](ReadRequest* request) { static_cast<SyncRead*>(request)->finished = true; };
  dispatcher_read(&read);
  while (!read.finished) usleep(5);
  if (read.failure) {
    forgive(read.failure);
    failure_error(env, *read.failure).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  return array;
}

// The caller keeps the buffer until the answer.
Napi::Value ReadFile(const Napi::CallbackInfo& info) {
  const double bytes = number(info, 2);
  void* target = device_range(info.Env(), int(number(info, 0)), number(info, 1), bytes, "readFile");
  if (!target) return info.Env().Undefined();
  FileRead* read = new FileRead(info.Env(), static_cast<char*>(target), size_t(bytes), int(number(info, 3)), int64_t(number(info, 4)));
  const Napi::Promise promise = read->promise();
  read->Queue();  // which deletes it in the end
  return promise;
}

void start_completions(Napi::Env env, Addon* addon) {
  const Napi::String name = Napi::String::New(env, "deepspeed-ts CUDA reads");
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, addon, on_completed, &addon->completed);
  napi_unref_threadsafe_function(env, addon->completed);
}

// Runs when the environment ends by itself; process.exit() skips it, and the driver then cleans up with the process.
void shut_down(Addon* addon) {
  addon->command_owner.Reset();
  if (device_is_open()) dispatcher_stop(10000);
}

}  // namespace

void raise(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  error.ThrowAsJavaScriptException();
}

Napi::Error failure_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.text);
  error.Set("kind", failure.kind);
  error.Set("op", failure.op);
  error.Set("rank", double(failure.rank));
  error.Set("peer", double(failure.peer));
  return error;
}

// No bytes of buffer 0 always exist: reading them is how JavaScript waits for the device.
void* device_range(Napi::Env env, int handle, double offset, double length, const char* what) {
  static char nothing;
  if (handle == 0 && length == 0 && device_is_open()) return &nothing;
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

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  if (loaded.exchange(true)) {
    raise(env, "ALREADY_LOADED",
          "the CUDA backend's native part is in use by another thread of this process. Load @deepspeed-ts/kernels-cuda in one thread "
          "only, or use processes (the deepspeed launcher) instead of worker_threads");
    return exports;
  }
  Addon* self = new Addon;
  Napi::Float64Array command = Napi::Float64Array::New(env, kCommandWords);
  self->command = command.Data();
  self->command_owner = Napi::Persistent(command.As<Napi::Object>());
  start_completions(env, self);
  env.AddCleanupHook(shut_down, self);

  const auto add = [&](const char* name, auto function) { exports.Set(name, Napi::Function::New(env, function, name, self)); };
  exports.Set("version", DS_VERSION);
  exports.Set("command", command);
  add("devices", Devices);
  add("open", Open);
  add("libraries", Libraries);
  add("alloc", Alloc);
  add("free", Free);
  add("memory", Memory);
  add("resetPeak", ResetPeak);
  add("trim", Trim);
  add("opId", OpId);
  add("opDtypes", OpDtypes);
  add("kernels", Kernels);
  add("launch", LaunchOp);
  add("graphs", SetGraphs);
  add("write", Write);
  add("read", Read);
  add("readSync", ReadSync);
  add("readFile", ReadFile);
  init_comm(env, exports);  // last: cleanup hooks run in reverse, so collectives end before the dispatcher that waits for them
  return exports;
}

}  // namespace ds

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return ds::Init(env, exports); }
NODE_API_MODULE(NODE_GYP_MODULE_NAME, init_addon)
