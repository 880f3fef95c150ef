// NCCL, opened at run time. The part of nccl.h that we use, declared here: the addon builds and loads without NCCL. Written against
// the interface of NCCL 2.18 and newer, which has been stable since.
#pragma once
#include <cuda_runtime_api.h>

#include <climits>
#include <cstddef>
#include <string>

namespace ds {
namespace nccl {

struct Comm;  // ncclComm
struct UniqueId {
  char bytes[128];
};

enum Result : int { kSuccess = 0, kInProgress = 7 };
enum Type : int { kInt8 = 0, kUint8 = 1, kInt32 = 2, kInt64 = 4, kFloat16 = 6, kFloat32 = 7, kBfloat16 = 9 };
enum Reduction : int { kSum = 0, kMax = 2, kMin = 3, kAvg = 4 };

// ncclConfig_t as of 2.18: NCCL reads as many bytes as `size` says and takes defaults for what came later.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21805;
  int blocking = INT_MIN;
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
};

struct Table {
  int (*get_version)(int*);
  int (*get_unique_id)(UniqueId*);
  int (*init)(Comm**, int size, UniqueId, int rank, Config*);
  int (*finalize)(Comm*);
  int (*destroy)(Comm*);
  int (*abort)(Comm*);
  int (*async_error)(Comm*, int*);
  const char* (*error_string)(int);
  const char* (*last_error)(Comm*);
  int (*group_start)();
  int (*group_end)();
  int (*all_reduce)(const void*, void*, size_t, int type, int reduction, Comm*, cudaStream_t);
  int (*reduce_scatter)(const void*, void*, size_t, int type, int reduction, Comm*, cudaStream_t);
  int (*all_gather)(const void*, void*, size_t, int type, Comm*, cudaStream_t);
  int (*broadcast)(const void*, void*, size_t, int type, int root, Comm*, cudaStream_t);
  int (*send)(const void*, size_t, int type, int peer, Comm*, cudaStream_t);
  int (*recv)(void*, size_t, int type, int peer, Comm*, cudaStream_t);
};

// nullptr where there is no NCCL to use; `reason` says why and what helps. Opens the library on the first call.
const Table* table(std::string* reason);

// An id that makes one group of those who init() with it. False with `reason` where that fails.
bool make_unique_id(UniqueId* id, std::string* reason);

}  // namespace nccl
}  // namespace ds
