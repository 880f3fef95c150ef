#include "rendezvous.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "meeting.h"

namespace ds {
namespace comm {

std::string this_host_id() {
  char boot[64] = "", network[64] = "";
  if (FILE* file = fopen("/proc/sys/kernel/random/boot_id", "re")) {
    if (fscanf(file, "%63s", boot) != 1) boot[0] = 0;
    fclose(file);
  }
  // Abstract unix sockets, which carry the descriptors, reach as far as the network namespace.
  ssize_t length = readlink("/proc/self/ns/net", network, sizeof network - 1);
  if (length < 0) length = 0;
  network[length] = 0;
  return std::string(boot) + " " + network;
}

namespace {

std::unique_ptr<Mesh> meet(const World& world, const std::atomic<bool>& stop) {
  Deadline deadline = in_ms(world.timeout_ms);
  auto mesh = std::make_unique<Mesh>(world.rank, world.size, world.silence_ms);
  std::unique_ptr<Meeting> meeting = world.rank == 0 ? host_meeting(world, deadline, stop) : join_meeting(world, deadline, stop);
  mesh->address = local_address(meeting->doors.tcp.get());
  try {
    connect_mesh(*mesh, meeting->doors, meeting->table, meeting->token, meeting->mesh_deadline);
  } catch (const Fault& fault) {
    meeting->conclude(fault.text);
    throw;
  }
  meeting->conclude("");
  return mesh;
}

}  // namespace

std::unique_ptr<Mesh> rendezvous(const World& world, const std::atomic<bool>& stop) {
  try {
    return meet(world, stop);
  } catch (const SocketError& error) {
    refuse(format("rank %d could not join the others: %s", world.rank, error.text().c_str()));
  }
}

}  // namespace comm
}  // namespace ds
