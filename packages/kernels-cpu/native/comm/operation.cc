#include "operation.h"

#include <string.h>

#include <algorithm>

#include "fault.h"
#include "reduce.h"

namespace ds {
namespace comm {
namespace {
const char* const kKinds[] = {"barrier",    "all_reduce", "reduce_scatter", "all_gather", "broadcast",
                              "all_to_all", "send",       "recv",           "split"};
const char* const kTypes[] = {"f32", "f16", "bf16", "i32", "i64", "u8", "bool", "i8"};
const char* const kReduces[] = {"sum", "mean", "max", "min"};

// FNV-1a; never 0, which means none.
uint32_t hash_of(const std::string& tag) {
  uint32_t hash = 2166136261u;
  for (const char c : tag) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash == 0 ? 1 : hash;
}

std::string describe_call(const Header& h) {
  std::string text = format("%s #%llu", kKinds[static_cast<int>(h.kind)], static_cast<unsigned long long>(h.sequence));
  auto count = static_cast<long long>(h.count);
  switch (h.kind) {
    case OpKind::kBarrier:
    case OpKind::kSplit: return text;
    case OpKind::kAllReduce: return text + format(" (%s of %lld %s)", kReduces[h.reduce], count, kTypes[h.dtype]);
    case OpKind::kReduceScatter: return text + format(" (%s of slices of %lld %s)", kReduces[h.reduce], count, kTypes[h.dtype]);
    case OpKind::kBroadcast: return text + format(" (%lld %s from rank %d)", count, kTypes[h.dtype], h.peer);
    case OpKind::kSend: return text + format(" (%lld %s to rank %d)", count, kTypes[h.dtype], h.peer);
    case OpKind::kRecv: return text + format(" (%lld %s from rank %d)", count, kTypes[h.dtype], h.peer);
    default: return text + format(" (slices of %lld %s)", count, kTypes[h.dtype]);
  }
}
}  // namespace

size_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case I64: return 8;
    case F32:
    case I32: return 4;
    case F16:
    case BF16: return 2;
    default: return 1;
  }
}

Header header_of(const Operation& op, uint64_t sequence) {
  Header header = {};
  header.magic = kHeaderMagic;
  header.kind = op.kind;
  header.dtype = static_cast<uint8_t>(op.dtype);
  header.reduce = static_cast<uint8_t>(op.reduce);
  header.peer = op.peer;
  header.sequence = sequence;
  header.count = op.count;
  if (!op.tag.empty()) {
    header.tag_hash = hash_of(op.tag);
    memcpy(header.tag, op.tag.data(), std::min(op.tag.size(), sizeof header.tag));
  }
  return header;
}

bool same_call(const Header& a, const Header& b) {
  return a.magic == b.magic && a.kind == b.kind && a.dtype == b.dtype && a.reduce == b.reduce && a.peer == b.peer &&
         a.sequence == b.sequence && a.count == b.count && a.tag_hash == b.tag_hash;
}

std::string describe(const Header& h) {
  if (h.magic != kHeaderMagic || h.kind > OpKind::kSplit || h.dtype > I8 || h.reduce > kMin) return "something unreadable";
  const std::string text = describe_call(h);
  return h.tag_hash == 0 ? text : text + " for '" + std::string(h.tag, strnlen(h.tag, sizeof h.tag)) + "'";
}

}  // namespace comm
}  // namespace ds
