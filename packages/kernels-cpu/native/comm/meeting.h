// The conversation at MASTER_ADDR:MASTER_PORT, seen from rank 0 (host) and from the others (guests):
//   guest: Hello    host: Welcome, at once    host, when all are there: Table    guest: Ready    host: Go
// At any point the host may send Refused with the reason instead, and a guest may report a failure with Ready.
#pragma once
#include "rendezvous.h"

namespace ds {
namespace comm {

enum class MessageType : uint32_t { kHello = 1, kWelcome, kTable, kRefused, kReady, kGo };

struct MessageHeader {
  char magic[8];  // tells us from any other program that may sit on the port
  uint32_t version;
  MessageType type;
  uint32_t bytes;
};

constexpr char kMagic[9] = "DSTSRDV\n";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kLongestMessage = 16 << 20;

struct Hello {
  int32_t rank;
  int32_t size;
  char job[64];
  char host_name[64];
  Endpoint endpoint;
};

std::string encode(MessageType type, const void* body, size_t bytes);
bool is_ours(const MessageHeader& header);

class Meeting {
 public:
  virtual ~Meeting() = default;
  // Reports how making the mesh went here ("" = well) and returns once it went well everywhere; throws otherwise.
  virtual void conclude(const std::string& problem) = 0;

  Doors doors;
  std::vector<Endpoint> table;
  uint64_t token = 0;
  Deadline mesh_deadline;
};

// How long making the mesh may take once all have arrived.
constexpr int64_t kMeshMs = 30000;

std::unique_ptr<Meeting> host_meeting(const World& world, Deadline deadline, const std::atomic<bool>& stop);
std::unique_ptr<Meeting> join_meeting(const World& world, Deadline deadline, const std::atomic<bool>& stop);

[[noreturn]] void refuse(const std::string& text);

}  // namespace comm
}  // namespace ds
