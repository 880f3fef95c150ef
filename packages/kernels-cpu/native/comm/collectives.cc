// All-reduce is reduce-scatter, then all-gather: each rank owns a slice, takes everybody's part of it, reduces in rank
// order and hands the result out. The order of additions is thus the same for every transport and world size.
#include "collectives.h"

#include <string.h>

#include "exchange.h"
#include "reduce.h"

namespace ds {
namespace comm {
namespace {

// Reduces a range chunk by chunk: each rank's part lies in memory that we can read, or comes over its link.
class Reducer {
 public:
  Reducer(Mesh& mesh, const Operation& op, std::vector<const char*> sources, std::vector<char*> targets, int64_t count)
      : mesh_(mesh), op_(op), sources_(std::move(sources)), targets_(std::move(targets)), left_(count),
        element_(element_bytes(op.dtype)), now_(sources_.size()) {}

  // True when the whole range is done.
  bool step(bool* moved) {
    if (left_ == 0) return true;
    auto chunk = static_cast<int64_t>(kChunk / element_);
    int64_t count = left_ < chunk ? left_ : chunk;
    size_t bytes = static_cast<size_t>(count) * element_;
    bool ready = true;
    for (size_t r = 0; r < sources_.size(); r++) {
      now_[r] = sources_[r] ? sources_[r] + at_ : mesh_.peer(static_cast<int>(r)).link->peek(bytes);
      ready = ready && now_[r] != nullptr;
    }
    if (!ready) return false;
    std::vector<void*> targets;
    for (char* target : targets_) targets.push_back(target + at_);
    reduce({now_.data(), static_cast<int>(now_.size()), targets.data(), static_cast<int>(targets.size()), count, op_.dtype,
            op_.reduce});
    for (size_t r = 0; r < sources_.size(); r++)
      if (!sources_[r]) mesh_.peer(static_cast<int>(r)).link->drop();
    at_ += bytes;
    left_ -= count;
    *moved = true;
    return left_ == 0;
  }

 private:
  Mesh& mesh_;
  const Operation& op_;
  std::vector<const char*> sources_;  // nullptr: over the link
  std::vector<char*> targets_;
  int64_t left_;
  size_t element_;
  std::vector<const void*> now_;
  size_t at_ = 0;
};

void all_reduce(Mesh& mesh, const Operation& op, Exchange& exchange) {
  const int size = mesh.size(), rank = mesh.rank();
  const size_t element = element_bytes(op.dtype);
  // Slices of whole cache lines, so that no two ranks write to one; the last ones may be short or empty.
  const int64_t line = static_cast<int64_t>(64 / element);
  const int64_t slice = ((op.count + size - 1) / size + line - 1) / line * line;
  auto begin = [&](int r) { return slice * r < op.count ? slice * r : op.count; };
  auto offset = [&](int r) { return static_cast<size_t>(begin(r)) * element; };
  auto bytes = [&](int r) { return offset(r + 1) - offset(r); };

  // Two ranks that see each other's tensor: the owner of a slice reads theirs and writes the result to both.
  std::vector<bool> direct(static_cast<size_t>(size));
  std::vector<const char*> sources(static_cast<size_t>(size));
  std::vector<char*> targets = {op.output + offset(rank)};
  for (int r = 0; r < size; r++) {
    direct[static_cast<size_t>(r)] = exchange.peer_reads_ours(r) && exchange.reads_theirs(r);
    if (r == rank) {
      sources[static_cast<size_t>(r)] = op.input + offset(rank);
    } else if (direct[static_cast<size_t>(r)]) {
      sources[static_cast<size_t>(r)] = exchange.theirs(r) + offset(rank);
      targets.push_back(exchange.theirs(r) + offset(rank));
    } else {
      exchange.send(r, op.input + offset(r), bytes(r));
    }
  }
  Reducer reducer(mesh, op, sources, targets, begin(rank + 1) - begin(rank));
  exchange.drive([&](bool* moved) {
    bool sent = exchange.pump(moved);
    return reducer.step(moved) && sent;
  });
  for (int r = 0; r < size; r++) {
    if (r == rank || direct[static_cast<size_t>(r)]) continue;
    exchange.send(r, op.output + offset(rank), bytes(rank));
    exchange.recv(r, op.output + offset(r), bytes(r));
  }
  exchange.finish();
  exchange.release(direct, direct);
}

void reduce_scatter(Mesh& mesh, const Operation& op, Exchange& exchange) {
  const int size = mesh.size(), rank = mesh.rank();
  const size_t bytes = static_cast<size_t>(op.count) * element_bytes(op.dtype);
  std::vector<bool> ours(static_cast<size_t>(size)), theirs(static_cast<size_t>(size));
  std::vector<const char*> sources(static_cast<size_t>(size));
  for (int r = 0; r < size; r++) {
    auto i = static_cast<size_t>(r);
    if (r == rank) {
      sources[i] = op.input + i * bytes;
      continue;
    }
    ours[i] = exchange.peer_reads_ours(r);
    theirs[i] = exchange.reads_theirs(r);
    if (theirs[i]) sources[i] = exchange.theirs(r) + static_cast<size_t>(rank) * bytes;
    if (!ours[i]) exchange.send(r, op.input + i * bytes, bytes);
  }
  Reducer reducer(mesh, op, sources, {op.output}, op.count);
  exchange.drive([&](bool* moved) {
    bool sent = exchange.pump(moved);
    return reducer.step(moved) && sent;
  });
  exchange.release(theirs, ours);
}

void all_gather(Mesh& mesh, const Operation& op, Exchange& exchange) {
  const size_t bytes = static_cast<size_t>(op.count) * element_bytes(op.dtype);
  char* own = op.output + static_cast<size_t>(mesh.rank()) * bytes;
  for (int r = 0; r < mesh.size(); r++) {
    exchange.give(r, op.input, bytes);
    exchange.take(r, op.output + static_cast<size_t>(r) * bytes, bytes, 0);
  }
  if (own != op.input) memcpy(own, op.input, bytes);
  exchange.complete();
}

void broadcast(Mesh& mesh, const Operation& op, Exchange& exchange) {
  const size_t bytes = static_cast<size_t>(op.count) * element_bytes(op.dtype);
  if (mesh.rank() == op.peer) {
    for (int r = 0; r < mesh.size(); r++) exchange.give(r, op.input, bytes);
  } else {
    exchange.take(op.peer, op.output, bytes, 0);
  }
  exchange.complete();
}

void all_to_all(Mesh& mesh, const Operation& op, Exchange& exchange) {
  const size_t bytes = static_cast<size_t>(op.count) * element_bytes(op.dtype);
  const size_t own = static_cast<size_t>(mesh.rank()) * bytes;
  for (int r = 0; r < mesh.size(); r++) {
    exchange.give(r, op.input + static_cast<size_t>(r) * bytes, bytes);
    exchange.take(r, op.output + static_cast<size_t>(r) * bytes, bytes, own);
  }
  memcpy(op.output + own, op.input + own, bytes);
  exchange.complete();
}

}  // namespace

void run_collective(Mesh& mesh, const Operation& op, uint64_t sequence) {
  Exchange exchange(mesh, op, sequence);
  if (op.count == 0) return;
  switch (op.kind) {
    case OpKind::kAllReduce: return all_reduce(mesh, op, exchange);
    case OpKind::kReduceScatter: return reduce_scatter(mesh, op, exchange);
    case OpKind::kAllGather: return all_gather(mesh, op, exchange);
    case OpKind::kBroadcast: return broadcast(mesh, op, exchange);
    case OpKind::kAllToAll: return all_to_all(mesh, op, exchange);
    default: return;
  }
}

}  // namespace comm
}  // namespace ds
