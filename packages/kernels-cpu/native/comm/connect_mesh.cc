#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "descriptors.h"
#include "rendezvous.h"

namespace ds {
namespace comm {
namespace {

constexpr uint32_t kGreetingMagic = 0x4453544d;
constexpr int kGreetingMs = 2000;

enum Lane : int32_t { kControl = 0, kData = 1 };

struct Greeting {
  uint32_t magic;
  int32_t rank;
  int32_t lane;
  int32_t unused;
  uint64_t token;
};

void greet(int fd, int rank, Lane lane, uint64_t token, Deadline deadline) {
  Greeting greeting = {kGreetingMagic, rank, lane, 0, token};
  send_all(fd, &greeting, sizeof greeting, deadline);
}

// Same host: a unix socket for control; the lower rank makes the rings; each side hands over its doorbell.
void join_local(Mesh& mesh, int rank, Fd control, Deadline deadline) {
  Peer& peer = mesh.peer(rank);
  bool lower = mesh.rank() < rank;
  Fd memory = lower ? create_shm_pair() : recv_fd(control.get(), deadline);
  if (lower) send_fd(control.get(), "", 1, memory.get(), deadline);
  send_fd(control.get(), "", 1, mesh.doorbell().get(), deadline);
  Fd doorbell = recv_fd(control.get(), deadline);
  peer.local = true;
  peer.link = make_shm_link(memory, lower ? 0 : 1, std::move(doorbell));
  peer.control = std::move(control);
}

Fd call(const Endpoint& to, Deadline deadline) {
  std::string error;
  std::vector<Address> addresses = resolve(to.host, to.port, &error);
  if (addresses.empty()) throw SocketError{EADDRNOTAVAIL};
  return connect_tcp(addresses[0], deadline);
}

void call_lower(Mesh& mesh, const Endpoint& to, bool local, uint64_t token, Deadline deadline) {
  if (local) {
    Fd control = connect_unix(to.unix_name, deadline);
    greet(control.get(), mesh.rank(), kControl, token, deadline);
    return join_local(mesh, to.rank, std::move(control), deadline);
  }
  Peer& peer = mesh.peer(to.rank);
  peer.control = call(to, deadline);
  greet(peer.control.get(), mesh.rank(), kControl, token, deadline);
  Fd data = call(to, deadline);
  greet(data.get(), mesh.rank(), kData, token, deadline);
  peer.link = make_tcp_link(std::move(data));
}

bool complete(Mesh& mesh) {
  for (int r = mesh.rank() + 1; r < mesh.size(); r++)
    if (!mesh.peer(r).link || !mesh.peer(r).control) return false;
  return true;
}

void answer(Mesh& mesh, Fd caller, bool local, uint64_t token, Deadline deadline) {
  Greeting greeting;
  try {
    Deadline soon = in_ms(kGreetingMs);
    recv_all(caller.get(), &greeting, sizeof greeting, soon < deadline ? soon : deadline);
  } catch (const SocketError&) {
    return;  // a port scanner, say: not one of us
  }
  bool ours = greeting.magic == kGreetingMagic && greeting.token == token && greeting.rank > mesh.rank() &&
              greeting.rank < mesh.size();
  if (!ours) return;
  if (local) return join_local(mesh, greeting.rank, std::move(caller), deadline);
  if (greeting.lane == kControl)
    mesh.peer(greeting.rank).control = std::move(caller);
  else
    mesh.peer(greeting.rank).link = make_tcp_link(std::move(caller));
}

}  // namespace

uint64_t random_token() {
  uint64_t token = 0;
  if (getrandom(&token, sizeof token, 0) != sizeof token) token = static_cast<uint64_t>(Clock::now().time_since_epoch().count());
  return token;
}

Doors open_doors(int rank, const std::string& host_id, const Address& listen_on) {
  Doors doors;
  Address address = listen_on;
  address.set_port(0);
  doors.tcp = listen_tcp(address);
  memset(&doors.endpoint, 0, sizeof doors.endpoint);
  std::string name = format("deepspeed-ts-%d-%016llx", getpid(), static_cast<unsigned long long>(random_token()));
  doors.unix = listen_unix(name);
  doors.endpoint.rank = rank;
  doors.endpoint.pid = getpid();
  doors.endpoint.port = local_address(doors.tcp.get()).port();
  snprintf(doors.endpoint.host_id, sizeof doors.endpoint.host_id, "%s", host_id.c_str());
  snprintf(doors.endpoint.unix_name, sizeof doors.endpoint.unix_name, "%s", name.c_str());
  return doors;
}

void connect_mesh(Mesh& mesh, Doors& doors, const std::vector<Endpoint>& table, uint64_t token, Deadline deadline) {
  auto local = [&](int r) {
    return strcmp(table[static_cast<size_t>(r)].host_id, table[static_cast<size_t>(mesh.rank())].host_id) == 0;
  };
  int at = 0;
  try {
    // Everybody listens before anybody calls, and calls wait in the listener's backlog: no order can deadlock.
    for (at = 0; at < mesh.rank(); at++) call_lower(mesh, table[static_cast<size_t>(at)], local(at), token, deadline);
    at = -1;
    while (!complete(mesh)) {
      pollfd entries[2] = {{doors.unix.get(), POLLIN, 0}, {doors.tcp.get(), POLLIN, 0}};
      int ready = poll(entries, 2, ms_left(deadline));
      if (ready < 0 && errno != EINTR) throw SocketError{errno};
      if (ready == 0 && Clock::now() >= deadline) throw SocketError{kLate};
      if (entries[0].revents & POLLIN) answer(mesh, accept_one(doors.unix.get(), deadline), true, token, deadline);
      if (entries[1].revents & POLLIN) answer(mesh, accept_one(doors.tcp.get(), deadline), false, token, deadline);
    }
  } catch (const SocketError& error) {
    std::string who = at >= 0 ? format("rank %d at %s port %d", at, table[static_cast<size_t>(at)].host, table[static_cast<size_t>(at)].port)
                              : std::string("a higher rank");
    throw Fault{FaultKind::kRendezvous, at, format("rank %d can't be joined to %s: %s", mesh.rank(), who.c_str(), error.text().c_str())};
  }
  mesh.endpoints = table;
}

}  // namespace comm
}  // namespace ds
