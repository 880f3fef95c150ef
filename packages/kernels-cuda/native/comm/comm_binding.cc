// The communicator's functions, as src/comm/native-comm.ts declares them. A group is a small integer in JavaScript; what happens to
// it comes back through its listener(work, failure).
#include <cuda_runtime_api.h>

#include <cstring>
#include <map>
#include <memory>

#include "../binding.h"
#include "../device.h"
#include "group.h"

namespace ds {
namespace {

using comm::Operation;
using comm::OpKind;

constexpr int kAbandonMs = 2000;

struct Event {
  enum Kind { kConnected, kDone, kTrouble, kClosed } kind;
  uint64_t work;
  FailurePtr failure;
};

struct Group {
  napi_threadsafe_function listener = nullptr;
  int awaited = 0;  // events to come; while there are any, the event loop stays alive
  std::shared_ptr<comm::Group> group;
};

// What one environment of Node holds. JavaScript's thread only.
struct Groups {
  std::map<int, std::unique_ptr<Group>> all;
  int last_id = 0;
};

Groups& groups(const Napi::CallbackInfo& info) { return *static_cast<Groups*>(info.Data()); }
double number(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().DoubleValue(); }
int integer(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int32Value(); }
std::string text(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::String>().Utf8Value(); }

Group* find_group(const Napi::CallbackInfo& info) {
  auto found = groups(info).all.find(integer(info, 0));
  return found == groups(info).all.end() ? nullptr : found->second.get();
}

void expect_event(Napi::Env env, Group& group) {
  if (group.awaited++ == 0) napi_ref_threadsafe_function(env, group.listener);
}

// ---- events ------------------------------------------------------------------------------------------------
struct Owner {
  Groups* groups;
  int id;
};

void deliver(napi_env raw, napi_value listener, void* context, void* data) {
  std::unique_ptr<Event> event(static_cast<Event*>(data));
  if (raw == nullptr) return;  // the environment is ending
  Napi::Env env(raw);
  Napi::HandleScope scope(env);
  auto* owner = static_cast<Owner*>(context);
  auto found = owner->groups->all.find(owner->id);
  if (found == owner->groups->all.end()) return;
  Group& group = *found->second;
  if (event->kind != Event::kTrouble && --group.awaited == 0) napi_unref_threadsafe_function(env, group.listener);
  const Napi::Value failure = event->failure ? failure_error(env, *event->failure).Value() : env.Null();
  const double work = event->kind == Event::kTrouble ? -1 : double(event->work);
  if (event->kind == Event::kClosed) {
    napi_release_threadsafe_function(group.listener, napi_tsfn_release);
    owner->groups->all.erase(found);
  }
  Napi::Function(env, listener).Call({Napi::Number::New(env, work), failure});
}

// ---- calls -------------------------------------------------------------------------------------------------
Napi::Value Problem(const Napi::CallbackInfo& info) {
  std::string reason;
  if (nccl::table(&reason)) return info.Env().Null();
  return Napi::String::New(info.Env(), reason);
}

Napi::Value Gpu(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!device_is_open()) return raise(env, "NO_DEVICE", "no GPU has been opened"), env.Undefined();
  const DeviceProperties& device = device_properties();
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device.index);
  if (error != cudaSuccess) return raise(env, "NO_DEVICE", cuda_error_text("asking for the GPU's UUID", error)), env.Undefined();
  char uuid[33] = {};
  for (int i = 0; i < 16; i++) snprintf(uuid + 2 * i, 3, "%02x", unsigned(static_cast<unsigned char>(properties.uuid.bytes[i])));
  Napi::Object object = Napi::Object::New(env);
  object.Set("uuid", Napi::String::New(env, uuid));
  object.Set("name", Napi::String::New(env, device.name));
  object.Set("index", Napi::Number::New(env, device.index));
  return object;
}

Napi::Value UniqueId(const Napi::CallbackInfo& info) {
  nccl::UniqueId id;
  std::string reason;
  if (!nccl::make_unique_id(&id, &reason)) return raise(info.Env(), "BAD_ARGUMENT", reason), info.Env().Undefined();
  Napi::Uint8Array array = Napi::Uint8Array::New(info.Env(), sizeof id);
  std::memcpy(array.Data(), &id, sizeof id);
  return array;
}

// open(uniqueId, rank, size, silenceMs, listener)
Napi::Value Open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!device_is_open()) return raise(env, "NO_DEVICE", "no GPU has been opened"), env.Undefined();
  comm::GroupSettings settings = {};
  const auto bytes = info[0].As<Napi::Uint8Array>();
  if (bytes.ByteLength() != sizeof settings.id) return raise(env, "BAD_ARGUMENT", "a group's id has 128 bytes"), env.Undefined();
  std::memcpy(&settings.id, bytes.Data(), sizeof settings.id);
  settings.rank = integer(info, 1);
  settings.size = integer(info, 2);
  settings.silence_ms = int64_t(number(info, 3));

  Groups& all = groups(info);
  const int id = ++all.last_id;
  auto group = std::make_unique<Group>();
  auto* owner = new Owner{&all, id};
  napi_create_threadsafe_function(
      env, info[4].As<Napi::Function>(), nullptr, Napi::String::New(env, "deepspeed-ts collectives"), 0, 1, owner,
      [](napi_env, void* data, void*) { delete static_cast<Owner*>(data); }, owner, deliver, &group->listener);
  group->awaited = 1;  // kConnected
  // By value: the group may be erased while its thread makes its last call.
  const auto post = [to = group->listener](Event::Kind kind, uint64_t work, FailurePtr failure) {
    auto* event = new Event{kind, work, std::move(failure)};
    if (napi_call_threadsafe_function(to, event, napi_tsfn_nonblocking) != napi_ok) delete event;
  };
  comm::GroupEvents events;
  events.connected = [post](FailurePtr failure) { post(Event::kConnected, 0, std::move(failure)); };
  events.done = [post](uint64_t work, FailurePtr failure) { post(Event::kDone, work, std::move(failure)); };
  events.trouble = [post](FailurePtr failure) { post(Event::kTrouble, 0, std::move(failure)); };
  events.closed = [post] { post(Event::kClosed, 0, nullptr); };
  group->group = std::make_shared<comm::Group>(settings, std::move(events));
  group->group->start();
  all.all[id] = std::move(group);
  return Napi::Number::New(env, id);
}

// submit(group, kind, dtype, reduce, peer, count, inputHandle, inputOffset, inputBytes, outputHandle, outputOffset, outputBytes)
Napi::Value Submit(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Group* group = find_group(info);
  if (!group) return raise(env, "CLOSED", "the communicator is closed"), env.Undefined();
  Operation op;
  op.kind = static_cast<OpKind>(integer(info, 1));
  op.dtype = integer(info, 2);
  op.reduce = integer(info, 3);
  op.peer = integer(info, 4);
  op.count = int64_t(number(info, 5));
  if (op.dtype < 0 || op.dtype >= kDTypes) return raise(env, "BAD_ARGUMENT", "collective: unknown dtype"), env.Undefined();
  if (op.kind != OpKind::kBarrier) {
    op.input = static_cast<const char*>(device_range(env, integer(info, 6), number(info, 7), number(info, 8), "collective"));
    if (!env.IsExceptionPending()) op.output = static_cast<char*>(device_range(env, integer(info, 9), number(info, 10), number(info, 11), "collective"));
    if (env.IsExceptionPending()) return env.Undefined();
  }
  expect_event(env, *group);
  return Napi::Number::New(env, double(group->group->submit(op)));
}

void Flush(const Napi::CallbackInfo& info) {
  if (Group* group = find_group(info)) group->group->flush();
}

// A closed group has nothing to wait for: everything had ended.
void Wait(const Napi::CallbackInfo& info) {
  if (Group* group = find_group(info)) group->group->wait(uint64_t(number(info, 1)));
}

// fail(group, kind, rank, peer, message, poison)
void Fail(const Napi::CallbackInfo& info) {
  Group* group = find_group(info);
  if (!group) return;
  auto failure = std::make_shared<Failure>();
  failure->kind = text(info, 1);
  failure->op = "collective";
  failure->rank = integer(info, 2);
  failure->peer = integer(info, 3);
  failure->text = text(info, 4);
  // First: once the group is taken off the device, what waits for it there goes on with data that means nothing.
  if (info[5].ToBoolean()) dispatcher_poison(failure);
  group->group->fail(failure);
}

void Close(const Napi::CallbackInfo& info) {
  Group* group = find_group(info);
  if (!group) return;
  expect_event(info.Env(), *group);
  group->group->close();
}

// Before the dispatcher's own end: a stream that waits for a collective must not wait for ever.
void shut_down(Groups* groups) {
  for (auto& [id, group] : groups->all)
    if (!group->group->abandon(kAbandonMs)) new std::shared_ptr<comm::Group>(group->group);  // busy: left to the process's end
  groups->all.clear();
}

}  // namespace

void init_comm(Napi::Env env, Napi::Object exports) {
  auto* self = new Groups;
  env.AddCleanupHook(shut_down, self);
  Napi::Object object = Napi::Object::New(env);
  const auto add = [&](const char* name, auto function) { object.Set(name, Napi::Function::New(env, function, name, self)); };
  add("problem", Problem);
  add("gpu", Gpu);
  add("uniqueId", UniqueId);
  add("open", Open);
  add("submit", Submit);
  add("flush", Flush);
  add("wait", Wait);
  add("fail", Fail);
  add("close", Close);
  exports.Set("comm", object);
}

}  // namespace ds
