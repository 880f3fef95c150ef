#include "exchange.h"

#include <stdio.h>
#include <string.h>

#include "../arena.h"

namespace ds {
namespace comm {

Exchange::Exchange(Mesh& mesh, const Operation& op, uint64_t sequence)
    : mesh_(mesh), mine_(header_of(op, sequence)), what_(describe(mine_)) {
  auto size = static_cast<size_t>(mesh.size());
  headers_.resize(size);
  theirs_.resize(size, nullptr);
  lanes_.resize(size);
  took_.resize(size, false);
  gave_.resize(size, false);

  int arena = 0;
  size_t offset = 0;
  if (op.input != nullptr && shared_location(op.input, &arena, &offset)) {
    mine_.arena = static_cast<uint32_t>(arena);
    mine_.offset = offset;
    mesh.announce_arena(arena);  // before the header that mentions it
  }

  headers_[static_cast<size_t>(mesh.rank())] = mine_;
  for (int r = 0; r < mesh.size(); r++) {
    send(r, &mine_, sizeof mine_);
    recv(r, &headers_[static_cast<size_t>(r)], sizeof(Header));
  }
  finish();
  mesh_.met = Clock::now();
  compare(op);

  drive([&](bool*) {
    for (int r = 0; r < mesh_.size(); r++) {
      const Header& header = headers_[static_cast<size_t>(r)];
      char*& at = theirs_[static_cast<size_t>(r)];
      if (!mesh_.peer(r).local || header.arena == 0 || at != nullptr) continue;
      at = mesh_.map(r, header.arena, header.offset);
      if (at == nullptr) return false;
    }
    return true;
  });
}

void Exchange::compare(const Operation& op) {
  bool agree = true;
  for (const Header& header : headers_) agree = agree && same_call(header, mine_);
  if (agree) return;
  std::string text = "ranks called different collectives: ";
  for (int r = 0; r < mesh_.size() && text.size() < 1500; r++)
    text += format("%srank %d %s", r ? ", " : "", r, describe(headers_[static_cast<size_t>(r)]).c_str());
  throw Fault{FaultKind::kMismatch, -1,
              text + ". Every rank must make the same calls in the same order with the same dtype and count." + sites(op)};
}

// Where each rank made its call. All ranks have seen all headers, so all of them come here, and nothing else moves on the links. Best
// effort: whoever is lost meanwhile has said nothing, and the mismatch is the better error.
std::string Exchange::sites(const Operation& op) {
  struct Site {
    char text[4096];
  };
  for (const Header& header : headers_)
    if (header.magic != kHeaderMagic || header.kind == OpKind::kSend || header.kind == OpKind::kRecv) return "";
  const size_t size = headers_.size(), self = static_cast<size_t>(mesh_.rank());
  std::vector<Site> all(size);
  for (Site& site : all) site.text[0] = 0;
  snprintf(all[self].text, sizeof all[self].text, "%s", op.site ? op.site().c_str() : "");
  const Site mine = all[self];
  try {
    for (int r = 0; r < mesh_.size(); r++) {
      send(r, &mine, sizeof mine);
      recv(r, &all[static_cast<size_t>(r)], sizeof mine);
    }
    finish();
  } catch (const Fault& fault) {
    if (fault.kind == FaultKind::kMismatch) throw;
  }
  std::string text;
  for (size_t r = 0; r < size && text.size() < 16000; r++) {
    all[r].text[sizeof all[r].text - 1] = 0;
    if (all[r].text[0] != 0) text += format("\nrank %zu called it from\n%s", r, all[r].text);
  }
  return text;
}

bool Exchange::peer_reads_ours(int peer) const { return mesh_.peer(peer).local && mine_.arena != 0; }

void Exchange::send(int peer, const void* data, size_t bytes) {
  if (bytes == 0 || peer == mesh_.rank()) return;
  lanes_[static_cast<size_t>(peer)].out.push_back({static_cast<char*>(const_cast<void*>(data)), bytes});
}

void Exchange::recv(int peer, void* data, size_t bytes) {
  if (bytes == 0 || peer == mesh_.rank()) return;
  lanes_[static_cast<size_t>(peer)].in.push_back({static_cast<char*>(data), bytes});
}

void Exchange::give(int peer, const void* data, size_t bytes) {
  if (bytes == 0 || peer == mesh_.rank()) return;
  if (peer_reads_ours(peer))
    gave_[static_cast<size_t>(peer)] = true;
  else
    send(peer, data, bytes);
}

void Exchange::take(int peer, void* data, size_t bytes, size_t offset) {
  if (bytes == 0 || peer == mesh_.rank()) return;
  if (!reads_theirs(peer)) return recv(peer, data, bytes);
  took_[static_cast<size_t>(peer)] = true;
  pulls_.push_back({static_cast<char*>(data), theirs(peer) + offset, bytes});
}

bool Exchange::pump(bool* moved) {
  bool idle = true;
  for (int r = 0; r < mesh_.size(); r++) {
    Lane& lane = lanes_[static_cast<size_t>(r)];
    Link* link = mesh_.peer(r).link.get();
    if (lane.out_at < lane.out.size()) {
      Span& span = lane.out[lane.out_at];
      size_t n = link->send(span.data, span.left < kChunk ? span.left : kChunk);
      span.data += n;
      span.left -= n;
      if (span.left == 0) lane.out_at++;
      *moved = *moved || n > 0;
      idle = idle && lane.out_at == lane.out.size();
    }
    if (lane.in_at < lane.in.size()) {
      Span& span = lane.in[lane.in_at];
      size_t n = link->recv(span.data, span.left);
      span.data += n;
      span.left -= n;
      if (span.left == 0) lane.in_at++;
      *moved = *moved || n > 0;
      idle = idle && lane.in_at == lane.in.size();
    }
  }
  if (pull_at_ < pulls_.size()) {
    Pull& pull = pulls_[pull_at_];
    size_t n = pull.left < kChunk ? pull.left : kChunk;
    memcpy(pull.to, pull.from, n);
    pull.to += n;
    pull.from += n;
    pull.left -= n;
    if (pull.left == 0) pull_at_++;
    *moved = true;
    idle = idle && pull_at_ == pulls_.size();
  }
  return idle;
}

void Exchange::finish() {
  drive([this](bool* moved) { return pump(moved); });
}

void Exchange::release(const std::vector<bool>& used_theirs, const std::vector<bool>& used_ours) {
  std::vector<uint64_t> tokens(used_ours.size());
  for (int r = 0; r < mesh_.size(); r++) {
    if (used_theirs[static_cast<size_t>(r)]) send(r, &mine_.sequence, sizeof mine_.sequence);
    if (used_ours[static_cast<size_t>(r)]) recv(r, &tokens[static_cast<size_t>(r)], sizeof(uint64_t));
  }
  finish();
}

void Exchange::complete() {
  finish();
  release(took_, gave_);
}

}  // namespace comm
}  // namespace ds
