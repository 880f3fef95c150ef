#include "p2p.h"

namespace ds {
namespace comm {

void PointToPoint::add(const Operation& op, uint64_t sequence, std::function<void()> done) {
  Transfer transfer = {};
  transfer.header = header_of(op, sequence);
  transfer.receives = op.kind == OpKind::kRecv;
  transfer.peer = op.peer;
  transfer.header_left = sizeof(Header);
  transfer.data = transfer.receives ? op.output : const_cast<char*>(op.input);
  transfer.left = static_cast<size_t>(op.count) * element_bytes(op.dtype);
  transfer.done = std::move(done);
  transfers_.push_back(std::move(transfer));
}

void PointToPoint::pump(bool* moved) {
  // Only the first transfer of each direction of a link may touch it.
  std::vector<bool> busy(2 * static_cast<size_t>(mesh_.size()));
  for (auto it = transfers_.begin(); it != transfers_.end();) {
    size_t lane = 2 * static_cast<size_t>(it->peer) + it->receives;
    if (!busy[lane] && step(*it, moved)) {
      it->done();
      it = transfers_.erase(it);
      continue;
    }
    busy[lane] = true;
    ++it;
  }
}

bool PointToPoint::step(Transfer& t, bool* moved) {
  Link& link = *mesh_.peer(t.peer).link;
  auto move = [&](void* data, size_t left) {
    size_t n = t.receives ? link.recv(data, left) : link.send(data, left < kChunk ? left : kChunk);
    *moved = *moved || n > 0;
    return n;
  };
  if (t.header_left > 0) {
    char* header = reinterpret_cast<char*>(t.receives ? &t.received : &t.header);
    t.header_left -= move(header + sizeof(Header) - t.header_left, t.header_left);
    if (t.header_left > 0) return false;
    const Header& sent = t.received;
    bool matches = sent.kind == OpKind::kSend && sent.peer == mesh_.rank() && sent.dtype == t.header.dtype && sent.count == t.header.count;
    if (t.receives && !matches)
      throw Fault{FaultKind::kMismatch, t.peer,
                  format("ranks called different operations: rank %d %s, rank %d %s. A recv needs a send of the same dtype and count.",
                         t.peer, describe(sent).c_str(), mesh_.rank(), describe(t.header).c_str())};
  }
  if (t.left > 0) {
    size_t n = move(t.data, t.left);
    t.data += n;
    t.left -= n;
  }
  return t.left == 0;
}

}  // namespace comm
}  // namespace ds
