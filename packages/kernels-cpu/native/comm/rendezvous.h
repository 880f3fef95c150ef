// How ranks find each other: rank 0 listens at MASTER_ADDR:MASTER_PORT, the others tell it who they are, it checks that
// they make one world, hands out the table of endpoints, and lets everybody go once all pairs are connected.
#pragma once
#include <atomic>

#include "mesh.h"

namespace ds {
namespace comm {

struct World {
  int rank;
  int size;
  std::string address;  // MASTER_ADDR
  int port;             // MASTER_PORT
  std::string host_id;  // ranks with equal ids share memory; empty: of this machine
  std::string job;      // ranks of different jobs don't mix; may be empty
  int64_t timeout_ms;   // for everybody to arrive
  int64_t silence_ms;   // see Mesh
};

// Throws a Fault of kind kRendezvous, on every rank that can be reached, with the reason. `stop` ends it early.
std::unique_ptr<Mesh> rendezvous(const World& world, const std::atomic<bool>& stop);

// This machine, as far as memory can be shared: its boot and its network namespace.
std::string this_host_id();

// The listeners of one rank while a mesh is being made, and what the others need to reach them.
struct Doors {
  Fd tcp, unix;
  Endpoint endpoint;
};
Doors open_doors(int rank, const std::string& host_id, const Address& listen_on);

// Connects every pair: the higher rank calls the lower one. `table` has one endpoint for each rank with its host set.
// `token` keeps strangers out. Throws a Fault.
void connect_mesh(Mesh& mesh, Doors& doors, const std::vector<Endpoint>& table, uint64_t token, Deadline deadline);

uint64_t random_token();

}  // namespace comm
}  // namespace ds
