#include "nccl.h"

#include "../library.h"

namespace ds {
namespace nccl {
namespace {

constexpr int kOldestVersion = 21803;  // ncclConfig_t as declared here

struct Opened {
  Table table = {};
  bool usable = false;
  std::string reason;
};

template <class F> void** target(F* function) { return reinterpret_cast<void**>(function); }

Opened open_nccl() {
  Opened opened;
  static const char* const names[] = {"libnccl.so.2", "libnccl.so", nullptr};
  const Library library = open_library("DEEPSPEED_TS_NCCL_PATH", names);
  if (!library.handle) {
    opened.reason = "more than one GPU needs NVIDIA's NCCL, which is not here (" + library.reason +
                    "). Debian and Ubuntu have it as libnccl2";
    return opened;
  }
  Table& t = opened.table;
  const Symbol symbols[] = {
      {"ncclGetVersion", target(&t.get_version)},
      {"ncclGetUniqueId", target(&t.get_unique_id)},
      {"ncclCommInitRankConfig", target(&t.init)},
      {"ncclCommFinalize", target(&t.finalize)},
      {"ncclCommDestroy", target(&t.destroy)},
      {"ncclCommAbort", target(&t.abort)},
      {"ncclCommGetAsyncError", target(&t.async_error)},
      {"ncclGetErrorString", target(&t.error_string)},
      {"ncclGetLastError", target(&t.last_error)},
      {"ncclGroupStart", target(&t.group_start)},
      {"ncclGroupEnd", target(&t.group_end)},
      {"ncclAllReduce", target(&t.all_reduce)},
      {"ncclReduceScatter", target(&t.reduce_scatter)},
      {"ncclAllGather", target(&t.all_gather)},
      {"ncclBroadcast", target(&t.broadcast)},
      {"ncclSend", target(&t.send)},
      {"ncclRecv", target(&t.recv)},
  };
  std::string missing;
  if (!load_symbols(library, symbols, sizeof symbols / sizeof *symbols, &missing)) {
    opened.reason = library.path + " has no " + missing + ": install NCCL 2.18.3 or newer";
    return opened;
  }
  int version = 0;
  t.get_version(&version);
  if (version < kOldestVersion) {
    opened.reason = library.path + " is version " + std::to_string(version) + ": install NCCL 2.18.3 or newer";
    return opened;
  }
  opened.usable = true;
  return opened;
}

}  // namespace

const Table* table(std::string* reason) {
  static const Opened& opened = *new Opened(open_nccl());
  if (!opened.usable && reason) *reason = opened.reason;
  return opened.usable ? &opened.table : nullptr;
}

bool make_unique_id(UniqueId* id, std::string* reason) {
  const Table* t = table(reason);
  if (!t) return false;
  const int result = t->get_unique_id(id);
  if (result == kSuccess) return true;
  if (reason) *reason = std::string("NCCL can't make a group's id: ") + t->error_string(result) + " (" + t->last_error(nullptr) + ")";
  return false;
}

}  // namespace nccl
}  // namespace ds
