// The communicator's functions, as src/comm/native-comm.ts declares them. A group is a small integer in JavaScript; what
// happens to it comes back through its listener(work, failure, value).
#include <future>
#include <map>
#include <memory>

#include "../allocator.h"
#include "../binding.h"
#include "communicator.h"
#include "reduce.h"
#include "rendezvous.h"

namespace ds {
namespace {

using comm::Communicator;
using comm::Mesh;
using comm::Operation;

constexpr int kAbandonMs = 2000;
// How long JavaScript may take to say where a call was made: it may be blocked, waiting for that very call.
constexpr int kSiteMs = 1000;

enum EventKind { kConnected, kDone, kSplit, kSite, kClosed };

struct Event {
  EventKind kind;
  uint64_t work;
  FailurePtr failure;
  int rank, size;
  std::unique_ptr<Mesh> mesh;
  comm::Timing timing;
  std::shared_ptr<std::promise<std::string>> answer;
};

struct Group {
  napi_threadsafe_function listener = nullptr;
  int awaited = 0;  // events to come; while there are any, the event loop stays alive
  std::unique_ptr<Communicator> communicator;
};

// What one environment of Node holds. JavaScript's thread only.
struct Groups {
  std::map<int, std::unique_ptr<Group>> all;
  std::map<int, std::unique_ptr<Mesh>> split_off;  // made, not yet adopted
  int last_id = 0;
};

Groups& groups(const Napi::CallbackInfo& info) { return *static_cast<Groups*>(info.Data()); }
double number(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().DoubleValue(); }
int integer(const Napi::CallbackInfo& info, size_t index) { return info[index].As<Napi::Number>().Int32Value(); }

void raise(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  error.ThrowAsJavaScriptException();
}

Group* find(const Napi::CallbackInfo& info) {
  auto found = groups(info).all.find(integer(info, 0));
  if (found != groups(info).all.end()) return found->second.get();
  raise(info.Env(), "CLOSED", "the communicator is closed");
  return nullptr;
}

void expect_event(Napi::Env env, Group& group) {
  if (group.awaited++ == 0) napi_ref_threadsafe_function(env, group.listener);
}

// ---- events --------------------------------------------------------------------------------------------
Napi::Value event_value(Napi::Env env, Groups& groups, Event& event) {
  if (event.failure || (event.kind != kConnected && event.kind != kSplit)) return env.Undefined();
  Napi::Object value = Napi::Object::New(env);
  value.Set("rank", event.rank);
  value.Set("size", event.size);
  if (event.kind == kSplit) {
    int id = ++groups.last_id;
    groups.split_off[id] = std::move(event.mesh);
    value.Set("mesh", id);
  }
  return value;
}

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
  Group& group = *owner->groups->all[owner->id];
  if (event->kind == kSite) {
    const Napi::Value text = Napi::Function(env, listener).Call({Napi::Number::New(env, double(event->work)), env.Null(), Napi::String::New(env, "site")});
    event->answer->set_value(!env.IsExceptionPending() && text.IsString() ? text.As<Napi::String>().Utf8Value() : "");
    return;
  }
  if (--group.awaited == 0) napi_unref_threadsafe_function(env, group.listener);
  Napi::Value failure = event->failure ? failure_error(env, *event->failure).Value() : env.Null();
  Napi::Value value = event_value(env, *owner->groups, *event);
  if (event->kind == kClosed) {
    napi_release_threadsafe_function(group.listener, napi_tsfn_release);
    owner->groups->all.erase(owner->id);  // joins the thread, whose last deed this event was
  }
  const comm::Timing& timing = event->timing;
  Napi::Function(env, listener)
      .Call({Napi::Number::New(env, double(event->work)), failure, value, Napi::Number::New(env, timing.begun),
             Napi::Number::New(env, timing.met), Napi::Number::New(env, timing.ended)});
}

int add_group(Napi::Env env, Groups& groups, comm::MeshMaker make, Napi::Function listener) {
  int id = ++groups.last_id;
  auto group = std::make_unique<Group>();
  auto* owner = new Owner{&groups, id};
  napi_create_threadsafe_function(
      env, listener, nullptr, Napi::String::New(env, "deepspeed-ts collectives"), 0, 1, owner,
      [](napi_env, void* data, void*) { delete static_cast<Owner*>(data); }, owner, deliver, &group->listener);
  group->awaited = 1;  // kConnected
  // By value: the group may be erased while its thread makes its last call.
  auto post = [to = group->listener](EventKind kind, uint64_t work, FailurePtr failure, int rank, int size, std::unique_ptr<Mesh> mesh) {
    auto* event = new Event{kind, work, std::move(failure), rank, size, std::move(mesh), {}, nullptr};
    if (napi_call_threadsafe_function(to, event, napi_tsfn_nonblocking) != napi_ok) delete event;
  };
  comm::Events events;
  events.connected = [post](int rank, int size, FailurePtr failure) { post(kConnected, 0, failure, rank, size, nullptr); };
  events.done = [to = group->listener](uint64_t work, FailurePtr failure, comm::Timing timing) {
    auto* event = new Event{kDone, work, std::move(failure), 0, 0, nullptr, timing, nullptr};
    if (napi_call_threadsafe_function(to, event, napi_tsfn_nonblocking) != napi_ok) delete event;
  };
  events.site = [to = group->listener](uint64_t work) -> std::string {
    auto answer = std::make_shared<std::promise<std::string>>();
    std::future<std::string> text = answer->get_future();
    auto* event = new Event{kSite, work, nullptr, 0, 0, nullptr, {}, answer};
    if (napi_call_threadsafe_function(to, event, napi_tsfn_nonblocking) != napi_ok) {
      delete event;
      return "";
    }
    try {
      if (text.wait_for(std::chrono::milliseconds(kSiteMs)) == std::future_status::ready) return text.get();
    } catch (const std::future_error&) {
      return "";  // the environment is ending
    }
    return "    (not known: its JavaScript is busy)";
  };
  events.split = [post](uint64_t work, FailurePtr failure, std::unique_ptr<Mesh> mesh) {
    int rank = mesh ? mesh->rank() : 0, size = mesh ? mesh->size() : 0;
    post(kSplit, work, failure, rank, size, std::move(mesh));
  };
  events.closed = [post] { post(kClosed, 0, nullptr, 0, 0, nullptr); };
  group->communicator = std::make_unique<Communicator>(std::move(make), std::move(events));
  groups.all[id] = std::move(group);
  return id;
}

// ---- calls ---------------------------------------------------------------------------------------------
Napi::Value Connect(const Napi::CallbackInfo& info) {
  Napi::Object options = info[0].As<Napi::Object>();
  auto text = [&](const char* key) { return options.Get(key).As<Napi::String>().Utf8Value(); };
  auto whole = [&](const char* key) { return options.Get(key).As<Napi::Number>().Int64Value(); };
  comm::World world = {int(whole("rank")), int(whole("size")), text("address"), int(whole("port")), text("hostId"), text("job"),
                       whole("rendezvousMs"), whole("silenceMs")};
  if (world.host_id.empty()) world.host_id = comm::this_host_id();
  auto make = [world](const std::atomic<bool>& stop) { return comm::rendezvous(world, stop); };
  return Napi::Number::New(info.Env(), add_group(info.Env(), groups(info), make, info[1].As<Napi::Function>()));
}

Napi::Value Adopt(const Napi::CallbackInfo& info) {
  auto found = groups(info).split_off.find(integer(info, 0));
  if (found == groups(info).split_off.end()) return raise(info.Env(), "BAD_ARGUMENT", "no such split"), info.Env().Undefined();
  // std::function has to be copyable.
  auto mesh = std::make_shared<std::unique_ptr<Mesh>>(std::move(found->second));
  groups(info).split_off.erase(found);
  auto make = [mesh](const std::atomic<bool>&) { return std::move(*mesh); };
  return Napi::Number::New(info.Env(), add_group(info.Env(), groups(info), make, info[1].As<Napi::Function>()));
}

// The address of `bytes` bytes of a buffer; throws and returns nullptr where they don't exist.
char* range(Napi::Env env, int handle, double offset, double bytes) {
  const Buffer* buffer = allocator().find(handle);
  if (!buffer) return raise(env, "BAD_HANDLE", "collective: buffer " + std::to_string(handle) + " is not allocated"), nullptr;
  if (!(offset >= 0 && bytes >= 0 && offset + bytes <= double(buffer->bytes)))
    return raise(env, "BAD_ARGUMENT", "collective: a tensor reaches beyond buffer " + std::to_string(handle)), nullptr;
  return static_cast<char*>(buffer->data) + size_t(offset);
}

// submit(group, kind, dtype, reduce, peer, count, inputHandle, inputOffset, inputBytes, outputHandle, outputOffset, outputBytes, tag)
Napi::Value Submit(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Group* group = find(info);
  if (!group) return env.Undefined();
  Operation op;
  op.kind = static_cast<comm::OpKind>(integer(info, 1));
  op.dtype = integer(info, 2);
  op.reduce = integer(info, 3);
  op.peer = integer(info, 4);
  op.count = int64_t(number(info, 5));
  if (info[12].IsString()) op.tag = info[12].As<Napi::String>().Utf8Value();
  if (op.kind != comm::OpKind::kBarrier) {
    op.input = range(env, integer(info, 6), number(info, 7), number(info, 8));
    if (op.input) op.output = range(env, integer(info, 9), number(info, 10), number(info, 11));
    if (!op.output) return env.Undefined();
  }
  expect_event(env, *group);
  return Napi::Number::New(env, double(group->communicator->submit(op)));
}

Napi::Value Split(const Napi::CallbackInfo& info) {
  Group* group = find(info);
  if (!group) return info.Env().Undefined();
  expect_event(info.Env(), *group);
  return Napi::Number::New(info.Env(), double(group->communicator->submit_split(integer(info, 1), int64_t(number(info, 2)))));
}

// The stream waits for the work; nothing to do when it has ended well.
void Wait(const Napi::CallbackInfo& info) {
  auto found = groups(info).all.find(integer(info, 0));
  if (found == groups(info).all.end()) return;  // closed: everything had ended
  if (auto work = found->second->communicator->take(uint64_t(number(info, 1)))) stream_enqueue_wait(std::move(work));
}

void Close(const Napi::CallbackInfo& info) {
  Group* group = find(info);
  if (!group) return;
  expect_event(info.Env(), *group);
  group->communicator->close();
}

// Before the stream's own end: a stream that waits for a collective must not wait for ever.
void shut_down(Groups* groups) {
  for (auto& [id, group] : groups->all)
    if (!group->communicator->abandon(kAbandonMs)) group->communicator.release();  // busy in a kernel: left to the process's end
  groups->all.clear();
  groups->split_off.clear();
}

}  // namespace

void init_comm(Napi::Env env, Napi::Object exports) {
  auto* self = new Groups;
  env.AddCleanupHook(shut_down, self);
  Napi::Object object = Napi::Object::New(env);
  const auto add = [&](const char* name, auto function) { object.Set(name, Napi::Function::New(env, function, name, self)); };
  add("connect", Connect);
  add("adopt", Adopt);
  add("submit", Submit);
  add("split", Split);
  add("wait", Wait);
  add("close", Close);
  exports.Set("comm", object);
}

}  // namespace ds
