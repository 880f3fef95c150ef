// The ranks of one communicator, each pair joined by a link for data and a control socket for everything that must get
// through while data does not flow: shared arenas, failures, goodbyes, and the end of a peer's process.
#pragma once
#include <atomic>
#include <string>
#include <unordered_map>
#include <vector>

#include "fault.h"
#include "link.h"

namespace ds {
namespace comm {

// Where a rank can be reached. Sent as is: every rank runs the same build (checked by its size and a version).
struct Endpoint {
  int32_t rank;
  int32_t pid;
  int32_t port;        // of its TCP listener
  char host[64];       // numeric address as the others see it; empty for rank 0 in the table: use the rendezvous address
  char host_id[128];   // equal on ranks that can share memory
  char unix_name[64];  // of its abstract unix listener
};

enum class PeerState { kAlive, kClosed, kLost };

struct Mapping {
  char* base;
  size_t bytes;
};

struct Peer {
  bool local = false;  // same host: control is a unix socket and can carry descriptors
  Fd control;
  std::unique_ptr<Link> link;
  PeerState state = PeerState::kAlive;
  Clock::time_point lost_at;
  std::string inbox;                              // control bytes not yet understood
  std::vector<Fd> descriptors;                    // that came with them
  std::unordered_map<uint32_t, Mapping> arenas;   // the peer's shared arenas
};

class Mesh {
 public:
  Mesh(int rank, int size, int64_t silence_ms);
  ~Mesh();

  int rank() const { return rank_; }
  int size() const { return size_; }
  Peer& peer(int rank) { return peers_[static_cast<size_t>(rank)]; }
  const Fd& doorbell() const { return doorbell_; }
  // Where the ranks are, and our own address: sub-groups meet there.
  std::vector<Endpoint> endpoints;
  Address address;
  int64_t silence_ms() const { return silence_ms_; }

  // Calls step(&moved) until it returns true. While nothing moves: spins for a moment, then sleeps in poll(). Throws a
  // Fault when a peer that the step needs is gone, silent for too long, or has told us that it failed.
  // `what` names the operation in errors.
  template <class Step> void drive(const std::string& what, Step&& step) {
    Patience patience;
    for (;;) {
      bool moved = false;
      clear_waits();
      if (step(&moved)) break;
      endure(what, moved, &patience);
    }
    if (patience.armed) set_sleeping(false);
  }

  // Makes drive() on this mesh's thread look again; from any thread.
  void ring() const;
  // When all ranks had come to the last collective.
  Clock::time_point met;
  // Longest sleep of drive() between two tries; for steps that also wait for something that can't ring.
  int check_ms = 1000;
  // Makes drive() throw; from any thread.
  void stop();

  // Address of a peer's shared memory in this process, or nullptr while its announcement has not come.
  char* map(int peer, uint32_t arena, uint64_t offset);
  // Sends the descriptor of one of our arenas to the local peers, once.
  void announce_arena(int arena);

  // Tells every peer why this rank gives up. Best effort.
  void tell_failure(const Fault& fault);
  void tell_goodbye();
  // Reads what has come on the control sockets; throws the Fault that a peer reports.
  void read_control();

 private:
  struct Patience {
    bool armed = false;
    bool timing = false;
    Deadline spin_until, silent_at;
  };
  void clear_waits();
  void set_sleeping(bool sleeping);
  void endure(const std::string& what, bool moved, Patience* patience);
  void sleep(int timeout_ms);
  void blame(const std::string& what);
  void drain(int rank);
  void understand(int rank);
  void send_control(int rank, uint32_t type, int32_t a, uint64_t b, const std::string& text, int fd);

  int rank_, size_;
  int64_t silence_ms_;
  Fd doorbell_;
  std::vector<Peer> peers_;
  std::vector<int> announced_;  // our arenas that the local peers know
  std::atomic<bool> stopping_{false};
};

}  // namespace comm
}  // namespace ds
