#include "mesh.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

#include "../arena.h"
#include "../futex.h"
#include "descriptors.h"

namespace ds {
namespace comm {
namespace {

// Long enough for a peer that is only a few cache misses behind, short enough to leave the core to compute threads.
constexpr auto kSpin = std::chrono::microseconds(20);
constexpr int kControlMs = 1000;
constexpr int kLastWordsMs = 100;
constexpr int kStragglersMs = 2000;

struct ControlHeader {
  uint32_t type;
  int32_t a;
  uint64_t b;
  uint32_t text_bytes;
  uint32_t unused;
};
enum : uint32_t { kArena = 1, kArenaGone = 2, kFailure = 3, kGoodbye = 4 };

void lose(Peer* peer) {
  peer->state = PeerState::kLost;
  peer->lost_at = Clock::now();
}

}  // namespace

Mesh::Mesh(int rank, int size, int64_t silence_ms)
    : rank_(rank), size_(size), silence_ms_(silence_ms), doorbell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      peers_(static_cast<size_t>(size)) {}

Mesh::~Mesh() {
  for (Peer& peer : peers_)
    for (auto& [arena, at] : peer.arenas) munmap(at.base, at.bytes);
}

void Mesh::ring() const {
  uint64_t one = 1;
  ssize_t ignored = write(doorbell_.get(), &one, sizeof one);
  (void)ignored;
}

void Mesh::stop() {
  stopping_.store(true);
  ring();
}

void Mesh::clear_waits() {
  for (Peer& peer : peers_)
    if (peer.link) peer.link->starved = peer.link->clogged = false;
}

void Mesh::set_sleeping(bool sleeping) {
  for (Peer& peer : peers_)
    if (peer.link) peer.link->set_sleeping(sleeping);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void Mesh::endure(const std::string& what, bool moved, Patience* patience) {
  if (moved) {
    if (patience->armed) set_sleeping(false);
    *patience = Patience();
    return;
  }
  // What was known to be dead before this fruitless try can't come any more.
  blame(what);
  auto now = Clock::now();
  if (!patience->timing) {
    patience->timing = true;
    patience->spin_until = now + kSpin;
    patience->silent_at = now + std::chrono::milliseconds(silence_ms_);
  }
  if (now < patience->spin_until) return cpu_pause();
  if (!patience->armed) {
    // One more try with the flag up: a peer that moves after it will ring.
    patience->armed = true;
    return set_sleeping(true);
  }
  if (now >= patience->silent_at) {
    for (int r = 0; r < size_; r++) {
      Link* link = peers_[static_cast<size_t>(r)].link.get();
      if (link == nullptr || !(link->starved || link->clogged)) continue;
      throw Fault{FaultKind::kPeerLost, r,
                  format("rank %d has waited %lld s for rank %d in %s. Its process is alive but silent: has it skipped this "
                         "call, or is it stuck? DEEPSPEED_TS_COMM_TIMEOUT (ms) sets how long to wait.",
                         rank_, static_cast<long long>(silence_ms_ / 1000), r, what.c_str())};
    }
  }
  int left = ms_left(patience->silent_at) + 1;
  sleep(left < check_ms ? left : check_ms);
  set_sleeping(true);  // a peer that rang took the flag down
}

void Mesh::sleep(int timeout_ms) {
  std::vector<pollfd> entries;
  entries.push_back({doorbell_.get(), POLLIN, 0});
  for (Peer& peer : peers_) {
    if (!peer.link) continue;
    if (peer.state == PeerState::kAlive) entries.push_back({peer.control.get(), POLLIN, 0});
    if (peer.link->poll_fd() >= 0 && peer.link->poll_events() != 0)
      entries.push_back({peer.link->poll_fd(), peer.link->poll_events(), 0});
    if (peer.link->dead && peer.state == PeerState::kAlive) timeout_ms = 0;
  }
  poll(entries.data(), entries.size(), timeout_ms);
  if (entries[0].revents != 0) {
    uint64_t count;
    ssize_t ignored = read(doorbell_.get(), &count, sizeof count);
    (void)ignored;
  }
  if (stopping_.load()) throw Fault{FaultKind::kInternal, -1, "the communicator was torn down"};
  read_control();
  // A data socket has ended: the control socket should say why in a moment. If not, the connection broke.
  for (Peer& peer : peers_) {
    if (!peer.link || !peer.link->dead || peer.state != PeerState::kAlive) continue;
    wait_for(peer.control.get(), POLLIN, in_ms(kLastWordsMs));
    read_control();
    if (peer.state == PeerState::kAlive) lose(&peer);
  }
}

void Mesh::blame(const std::string& what) {
  for (int r = 0; r < size_; r++) {
    Peer& peer = peers_[static_cast<size_t>(r)];
    if (!peer.link || peer.state == PeerState::kAlive) continue;
    if (!peer.link->starved && !peer.link->clogged) continue;
    // The news came over another socket and may have overtaken data. A host that vanished never ends its data socket.
    bool given_up = peer.state == PeerState::kLost && Clock::now() - peer.lost_at > std::chrono::milliseconds(kStragglersMs);
    if (!peer.link->ended() && !given_up) continue;
    const char* how = peer.state == PeerState::kClosed
                          ? "it closed its communicator; every rank must make the same calls before close()"
                          : "its process has ended or its connection broke";
    throw Fault{FaultKind::kPeerLost, r, format("rank %d lost rank %d in %s: %s", rank_, r, what.c_str(), how)};
  }
}

char* Mesh::map(int rank, uint32_t arena, uint64_t offset) {
  Peer& peer = peers_[static_cast<size_t>(rank)];
  if (peer.arenas.count(arena) == 0) read_control();
  auto found = peer.arenas.find(arena);
  if (found != peer.arenas.end()) return found->second.base + offset;
  peer.link->starved = true;
  return nullptr;
}

void Mesh::announce_arena(int arena) {
  for (int known : announced_)
    if (known == arena) return;
  // The allocator gave some back since: peers must not keep their pages alive.
  size_t bytes = 0, kept = 0;
  for (int known : announced_) {
    if (arena_fd(known, &bytes) >= 0) {
      announced_[kept++] = known;
      continue;
    }
    for (int r = 0; r < size_; r++)
      if (peer(r).local) send_control(r, kArenaGone, known, 0, "", -1);
  }
  announced_.resize(kept);
  announced_.push_back(arena);
  int fd = arena_fd(arena, &bytes);
  for (int r = 0; r < size_; r++)
    if (peer(r).local) send_control(r, kArena, arena, bytes, "", fd);
}

void Mesh::tell_failure(const Fault& fault) {
  for (int r = 0; r < size_; r++)
    send_control(r, kFailure, fault.peer, static_cast<uint64_t>(fault.kind), fault.text, -1);
}

void Mesh::tell_goodbye() {
  for (int r = 0; r < size_; r++) send_control(r, kGoodbye, 0, 0, "", -1);
}

void Mesh::send_control(int rank, uint32_t type, int32_t a, uint64_t b, const std::string& text, int fd) {
  Peer& to = peers_[static_cast<size_t>(rank)];
  if (!to.link || to.state != PeerState::kAlive) return;
  ControlHeader header = {type, a, b, static_cast<uint32_t>(text.size()), 0};
  std::string message(reinterpret_cast<const char*>(&header), sizeof header);
  message += text;
  try {
    if (fd >= 0)
      send_fd(to.control.get(), message.data(), message.size(), fd, in_ms(kControlMs));
    else
      send_all(to.control.get(), message.data(), message.size(), in_ms(kControlMs));
  } catch (const SocketError&) {
    // The peer is gone; whoever needs it next finds out from its sockets.
  }
}

void Mesh::read_control() {
  // All sockets first: a peer's own end, read after its last words, must not hide what it said.
  for (int r = 0; r < size_; r++) drain(r);
  for (int r = 0; r < size_; r++) understand(r);
}

void Mesh::drain(int rank) {
  Peer& peer = peers_[static_cast<size_t>(rank)];
  while (peer.link && peer.state == PeerState::kAlive) {
    char bytes[4096];
    Fd descriptor;
    ssize_t got = recv_with_fd(peer.control.get(), bytes, sizeof bytes, &descriptor);
    if (descriptor) peer.descriptors.push_back(std::move(descriptor));
    if (got > 0) {
      peer.inbox.append(bytes, static_cast<size_t>(got));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else if (got < 0 && errno == EAGAIN) {
      return;
    } else {
      lose(&peer);
    }
  }
}

void Mesh::understand(int rank) {
  Peer& peer = peers_[static_cast<size_t>(rank)];
  ControlHeader header;
  while (peer.inbox.size() >= sizeof header) {
    memcpy(&header, peer.inbox.data(), sizeof header);
    if (peer.inbox.size() < sizeof header + header.text_bytes) return;
    std::string text = peer.inbox.substr(sizeof header, header.text_bytes);
    peer.inbox.erase(0, sizeof header + header.text_bytes);
    if (header.type == kGoodbye) peer.state = PeerState::kClosed;
    if (header.type == kFailure) throw Fault{static_cast<FaultKind>(header.b), header.a, text};
    auto arena = static_cast<uint32_t>(header.a);
    if (header.type == kArenaGone && peer.arenas.count(arena) != 0) {
      munmap(peer.arenas[arena].base, peer.arenas[arena].bytes);
      peer.arenas.erase(arena);
    }
    if (header.type == kArena && !peer.descriptors.empty()) {
      void* at = mmap(nullptr, header.b, PROT_READ | PROT_WRITE, MAP_SHARED, peer.descriptors.front().get(), 0);
      peer.descriptors.erase(peer.descriptors.begin());
      if (at == MAP_FAILED)
        throw Fault{FaultKind::kInternal, rank, format("rank %d can't map shared memory of rank %d: %s", rank_, rank, strerror(errno))};
      peer.arenas[arena] = {static_cast<char*>(at), header.b};
    }
  }
}

}  // namespace comm
}  // namespace ds
