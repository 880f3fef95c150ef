#include "split.h"

#include <string.h>

#include <algorithm>

#include "exchange.h"
#include "rendezvous.h"

namespace ds {
namespace comm {
namespace {

constexpr int64_t kJoinMs = 30000;

struct Record {
  int32_t color;
  int32_t unused;
  int64_t key;
  uint64_t token;
  Endpoint endpoint;
};
struct Outcome {
  char problem[512];
};

// Everybody's record to everybody.
template <class T> std::vector<T> collect(Mesh& mesh, Exchange& exchange, const T& mine) {
  std::vector<T> all(static_cast<size_t>(mesh.size()));
  all[static_cast<size_t>(mesh.rank())] = mine;
  for (int r = 0; r < mesh.size(); r++) {
    exchange.send(r, &mine, sizeof mine);
    exchange.recv(r, &all[static_cast<size_t>(r)], sizeof mine);
  }
  exchange.finish();
  return all;
}

}  // namespace

std::unique_ptr<Mesh> split_mesh(Mesh& parent, const Operation& op, uint64_t sequence, int color, int64_t key) {
  Exchange exchange(parent, op, sequence);
  auto self = static_cast<size_t>(parent.rank());
  Record mine = {};
  mine.color = color;
  mine.key = key;
  mine.token = random_token();
  Doors doors;
  Outcome outcome = {};
  try {
    doors = open_doors(parent.rank(), parent.endpoints[self].host_id, parent.address);
    mine.endpoint = doors.endpoint;
  } catch (const SocketError& error) {
    snprintf(outcome.problem, sizeof outcome.problem, "rank %d can't listen: %s", parent.rank(), error.text().c_str());
  }

  std::vector<Record> records = collect(parent, exchange, mine);
  std::vector<Record> group;
  for (Record& record : records) {
    if (record.color != color) continue;
    // Under the address by which the parent reached it.
    memcpy(record.endpoint.host, parent.endpoints[static_cast<size_t>(record.endpoint.rank)].host, sizeof record.endpoint.host);
    group.push_back(record);
  }
  std::stable_sort(group.begin(), group.end(), [](const Record& a, const Record& b) { return a.key < b.key; });
  std::vector<Endpoint> table;
  int rank = 0;
  for (const Record& record : group) {
    if (record.endpoint.rank == parent.rank()) rank = static_cast<int>(table.size());
    table.push_back(record.endpoint);
    table.back().rank = static_cast<int32_t>(table.size()) - 1;
  }

  auto mesh = std::make_unique<Mesh>(rank, static_cast<int>(table.size()), parent.silence_ms());
  mesh->address = parent.address;
  if (outcome.problem[0] == 0) {
    try {
      connect_mesh(*mesh, doors, table, group[0].token, in_ms(kJoinMs));
    } catch (const Fault& fault) {
      snprintf(outcome.problem, sizeof outcome.problem, "%s", fault.text.c_str());
    }
  }
  // A group that came together on some ranks only is no group.
  for (const Outcome& other : collect(parent, exchange, outcome))
    if (other.problem[0] != 0) throw Fault{FaultKind::kRendezvous, -1, std::string("split failed: ") + other.problem};
  return mesh;
}

}  // namespace comm
}  // namespace ds
