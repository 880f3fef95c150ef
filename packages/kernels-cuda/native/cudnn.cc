#include "cudnn.h"

#include "cublaslt.h"
#include "cudnn_attention.h"
#include "library.h"

namespace ds::cudnn {
namespace {

struct Loaded {
  Api api{};
  bool usable = false;
  std::string reason;
};

Loaded load() {
  Loaded loaded;
  // cuDNN opens cuBLASLt itself, in places of its own, and ends the process where there is none: have it loaded before.
  if (const char* reason = cublaslt_unavailable()) {
    loaded.reason = reason;
    return loaded;
  }
  static const char* const names[] = {"libcudnn.so.9", nullptr};
  const Library library = open_library("DEEPSPEED_TS_CUDNN_PATH", names);
  if (!library.handle) {
    loaded.reason = library.reason;
    return loaded;
  }
  Api& api = loaded.api;
  const auto at = [](auto* function) { return reinterpret_cast<void**>(function); };
  const Symbol symbols[] = {
      {"cudnnGetVersion", at(&api.version)},
      {"cudnnCreate", at(&api.create)},
      {"cudnnSetStream", at(&api.set_stream)},
      {"cudnnGetErrorString", at(&api.error_string)},
      {"cudnnGetLastErrorString", at(&api.last_error_string)},
      {"cudnnBackendCreateDescriptor", at(&api.create_descriptor)},
      {"cudnnBackendDestroyDescriptor", at(&api.destroy_descriptor)},
      {"cudnnBackendSetAttribute", at(&api.set_attribute)},
      {"cudnnBackendGetAttribute", at(&api.get_attribute)},
      {"cudnnBackendFinalize", at(&api.finalize)},
      {"cudnnBackendExecute", at(&api.execute)},
  };
  std::string missing;
  if (!load_symbols(library, symbols, sizeof symbols / sizeof *symbols, &missing)) {
    loaded.reason = library.path + " has no " + missing;
    return loaded;
  }
  const size_t version = api.version();
  if (version < 90000 || version >= 100000) {
    loaded.reason = library.path + " is cuDNN " + std::to_string(version) + ", expected 9.x";
    return loaded;
  }
  // NVIDIA withdrew attention of these two: known wrong results.
  if (version == 91000 || version == 91001) {
    loaded.reason = library.path + " is cuDNN 9.10." + std::to_string(version - 91000) + ", whose attention is known to be wrong";
    return loaded;
  }
  loaded.usable = true;
  return loaded;
}

// Never destroyed: plans may outlive the runtime at exit, and the process gives the memory back anyway.
const Loaded& loaded() {
  static const Loaded* const once = new Loaded(load());
  return *once;
}

}  // namespace

const Api* api() { return loaded().usable ? &loaded().api : nullptr; }
const char* unavailable() { return loaded().usable ? nullptr : loaded().reason.c_str(); }

Handle handle(cudaStream_t stream, std::string* reason) {
  static Handle created = nullptr;
  static cudaStream_t bound = nullptr;
  static bool failed = false;
  static std::string* const why = new std::string;
  if (!created && !failed) {
    if (const Status status = api()->create(&created)) {
      failed = true;
      created = nullptr;
      *why = "cudnnCreate: " + status_text(status);
    }
  }
  if (!created) {
    *reason = *why;
    return nullptr;
  }
  if (bound != stream) {
    if (const Status status = api()->set_stream(created, stream)) {
      *reason = "cudnnSetStream: " + status_text(status);
      return nullptr;
    }
    bound = stream;
  }
  return created;
}

std::string status_text(Status status) {
  std::string text = api()->error_string(status);
  char detail[1024] = "";
  api()->last_error_string(detail, sizeof detail);
  detail[sizeof detail - 1] = 0;
  return *detail ? text + ": " + detail : text;
}

}  // namespace ds::cudnn

namespace ds {
const char* cudnn_unavailable() { return cudnn::unavailable(); }
}  // namespace ds
