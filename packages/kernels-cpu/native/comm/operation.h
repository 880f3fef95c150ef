// One call of a rank, as the other ranks must see it too.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace ds {
namespace comm {

enum class OpKind : uint8_t {
  kBarrier, kAllReduce, kReduceScatter, kAllGather, kBroadcast, kAllToAll, kSend, kRecv, kSplit
};

struct Operation {
  OpKind kind = OpKind::kBarrier;
  int32_t dtype = 0;
  int32_t reduce = 0;
  int32_t peer = -1;       // root of a broadcast, other side of a send or recv
  int64_t count = 0;       // elements of one slice: all of the tensor for all_reduce, broadcast, send and recv
  const char* input = nullptr;
  char* output = nullptr;  // the same as input for all_reduce and broadcast
  std::string tag;         // what the caller says the call is for; ranks must agree on it
  std::function<std::string()> site;  // where JavaScript made the call; waits for it, so asked only when ranks disagree

  bool is_p2p() const { return kind == OpKind::kSend || kind == OpKind::kRecv; }
};

size_t element_bytes(int32_t dtype);

// What goes to every peer before any data.
struct Header {
  uint32_t magic;
  OpKind kind;
  uint8_t dtype;
  uint8_t reduce;
  uint8_t unused;
  int32_t peer;
  uint32_t arena;   // where the input lies in shared memory; 0: private memory
  uint64_t sequence;
  int64_t count;
  uint64_t offset;  // in the arena
  uint32_t tag_hash;  // of the whole tag; 0: none
  char tag[44];       // its beginning, for people
};
static_assert(sizeof(Header) == 88, "no padding: ranks compare it");

constexpr uint32_t kHeaderMagic = 0x44535443;

Header header_of(const Operation& op, uint64_t sequence);
// Same call, wherever its memory lies.
bool same_call(const Header& a, const Header& b);
// "all_reduce #17 (sum of 1024 f32) for 'the tag'"
std::string describe(const Header& header);

}  // namespace comm
}  // namespace ds
