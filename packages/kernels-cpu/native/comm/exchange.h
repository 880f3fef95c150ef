// The traffic of one collective on one rank: spans to send to and receive from each peer, and spans to copy straight
// out of a peer's shared memory. Spans of one peer move in the order in which they were added.
#pragma once
#include "mesh.h"
#include "operation.h"

namespace ds {
namespace comm {

class Exchange {
 public:
  // Meets all peers: announces our call, collects theirs, and throws a mismatch Fault unless they agree.
  Exchange(Mesh& mesh, const Operation& op, uint64_t sequence);

  // Whether `peer` reads our input, or we read its input, where it lies.
  bool peer_reads_ours(int peer) const;
  bool reads_theirs(int peer) const { return theirs_[static_cast<size_t>(peer)] != nullptr; }
  char* theirs(int peer) const { return theirs_[static_cast<size_t>(peer)]; }

  void send(int peer, const void* data, size_t bytes);
  void recv(int peer, void* data, size_t bytes);
  // Our input from `data` on is for `peer`: sent, unless the peer copies it itself.
  void give(int peer, const void* data, size_t bytes);
  // Its input from `offset` on is for us.
  void take(int peer, void* data, size_t bytes, size_t offset);

  // Moves what can be moved; true when nothing is left.
  bool pump(bool* moved);
  template <class Step> void drive(Step&& step) { mesh_.drive(what_, step); }
  void finish();
  // Tells peers whose memory we read or wrote that we are done with it, and waits until ours is free as well.
  void release(const std::vector<bool>& used_theirs, const std::vector<bool>& used_ours);
  // After give() and take(): all of the above.
  void complete();

 private:
  struct Span {
    char* data;
    size_t left;
  };
  struct Lane {
    std::vector<Span> out, in;
    size_t out_at = 0, in_at = 0;
  };
  struct Pull {
    char* to;
    const char* from;
    size_t left;
  };
  void compare(const Operation& op);
  std::string sites(const Operation& op);

  Mesh& mesh_;
  Header mine_;
  std::string what_;
  std::vector<Header> headers_;
  std::vector<char*> theirs_;
  std::vector<Lane> lanes_;
  std::vector<Pull> pulls_;
  std::vector<bool> took_, gave_;
  size_t pull_at_ = 0;
};

}  // namespace comm
}  // namespace ds
