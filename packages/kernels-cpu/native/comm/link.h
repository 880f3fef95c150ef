// A byte stream to one peer and back. Nothing here waits: every call moves what it can at once and says how much.
// Sender and receiver cut a message of n bytes at the same places (every kChunk bytes from its start), so that a
// whole chunk can be looked at where it lies.
#pragma once
#include <memory>

#include "socket.h"

namespace ds {
namespace comm {

constexpr size_t kChunk = 256 * 1024;

class Link {
 public:
  virtual ~Link() = default;
  // Takes the next bytes of a message of which `bytes` are left; 0: no room now.
  virtual size_t send(const void* data, size_t bytes) = 0;
  virtual size_t recv(void* data, size_t bytes) = 0;
  // The whole next chunk (bytes <= kChunk) in place, or nullptr while it is not all there. Good until drop().
  virtual const void* peek(size_t bytes) = 0;
  virtual void drop() = 0;

  // A descriptor to poll and the events that the last calls were short of; -1: the doorbell covers it.
  virtual int poll_fd() const { return -1; }
  virtual short poll_events() const { return 0; }
  // Of a peer that is gone: whether all that it had sent is here.
  virtual bool ended() const { return dead; }
  // Announces (or takes back) that this rank is about to sleep, so that the peer rings its doorbell.
  virtual void set_sleeping(bool) {}

  // Set by calls that moved nothing, cleared by the owner before it tries again: what this rank is waiting for.
  bool starved = false;
  bool clogged = false;
  // The stream has ended (reset or end of file); what had arrived was taken first.
  bool dead = false;
};

std::unique_ptr<Link> make_tcp_link(Fd data);

// The two sides of a shared-memory pair: `side` 0 is the lower rank, which made the memory.
Fd create_shm_pair();
std::unique_ptr<Link> make_shm_link(const Fd& memory, int side, Fd peer_doorbell);

}  // namespace comm
}  // namespace ds
