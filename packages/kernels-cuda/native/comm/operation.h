// One call of a rank.
#pragma once
#include <cstdint>

namespace ds {
namespace comm {

// As src/comm/native-comm.ts numbers them.
enum class OpKind : int { kBarrier, kAllReduce, kReduceScatter, kAllGather, kBroadcast, kAllToAll, kSend, kRecv };

struct Operation {
  uint64_t work = 0;
  OpKind kind = OpKind::kBarrier;
  int dtype = 0;            // DType
  int reduce = 0;           // sum, mean, max, min
  int peer = -1;            // root of a broadcast, other side of a send or recv
  int64_t count = 0;        // elements of one slice: all of the tensor for all-reduce, broadcast, send and recv
  const char* input = nullptr;
  char* output = nullptr;   // the same as input for all-reduce and broadcast

  bool is_p2p() const { return kind == OpKind::kSend || kind == OpKind::kRecv; }
};

}  // namespace comm
}  // namespace ds
