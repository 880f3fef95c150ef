#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "meeting.h"

namespace ds {
namespace comm {
namespace {

constexpr int64_t kWelcomeMs = 5000;
// The host's own timeout comes first, so that its reason (who is missing) reaches the guests.
constexpr int64_t kGraceMs = 2000;
constexpr int kRetryMs = 50;

class Guest : public Meeting {
 public:
  Guest(const World& world, Deadline deadline, const std::atomic<bool>& stop) : world_(world), stop_(stop) {
    call(deadline);
    Deadline soon = in_ms(kWelcomeMs);
    welcome_by_ = soon < deadline ? soon : deadline;
    // Where the others can reach us: the address from which we reached rank 0. On rank 0's own host that may be loopback,
    // because many systems map a host's name to 127.0.1.1.
    Address own = local_address(host_.get());
    if (own.is_loopback() && !names_loopback(world.address)) external_address(&own);
    doors = open_doors(world.rank, world.host_id, own);
    introduce();
    Deadline patient = deadline + std::chrono::milliseconds(kGraceMs);
    std::string body = receive(MessageType::kTable, patient, "the other ranks");
    if (body.size() != sizeof token + static_cast<size_t>(world.size) * sizeof(Endpoint)) refuse(where() + " sent a table of the wrong size");
    memcpy(&token, body.data(), sizeof token);
    table.resize(static_cast<size_t>(world.size));
    memcpy(table.data(), body.data() + sizeof token, body.size() - sizeof token);
    snprintf(table[0].host, sizeof table[0].host, "%s", peer_address(host_.get()).host().c_str());
    mesh_deadline = in_ms(kMeshMs);
  }

  void conclude(const std::string& problem) override {
    try {
      std::string ready = encode(MessageType::kReady, problem.data(), problem.size());
      send_all(host_.get(), ready.data(), ready.size(), mesh_deadline);
    } catch (const SocketError& error) {
      refuse(format("rank %d lost %s: %s", world_.rank, where().c_str(), error.text().c_str()));
    }
    if (problem.empty()) receive(MessageType::kGo, mesh_deadline + std::chrono::milliseconds(kGraceMs), "the go-ahead");
  }

 private:
  std::string where() const { return format("rank 0 at %s:%d", world_.address.c_str(), world_.port); }

  // Ranks start in any order: until the deadline nobody listening yet is no error.
  void call(Deadline deadline) {
    std::string last;
    while (Clock::now() < deadline) {
      if (stop_) refuse("the rendezvous was cancelled");
      for (Address& address : resolve(world_.address, world_.port, &last)) {
        try {
          host_ = connect_tcp(address, deadline);
          return;
        } catch (const SocketError& error) {
          last = error.text();
        }
      }
      usleep(kRetryMs * 1000);
    }
    refuse(format("rank %d found no rank 0 at %s:%d within %.1f s (last attempt: %s). Is rank 0 running, and are MASTER_ADDR "
                  "and MASTER_PORT the same on every rank?",
                  world_.rank, world_.address.c_str(), world_.port, static_cast<double>(world_.timeout_ms) / 1000, last.c_str()));
  }

  void introduce() {
    snprintf(doors.endpoint.host, sizeof doors.endpoint.host, "%s", local_address(doors.tcp.get()).host().c_str());
    Hello hello = {};
    hello.rank = world_.rank;
    hello.size = world_.size;
    snprintf(hello.job, sizeof hello.job, "%s", world_.job.c_str());
    gethostname(hello.host_name, sizeof hello.host_name - 1);
    hello.endpoint = doors.endpoint;
    try {
      std::string message = encode(MessageType::kHello, &hello, sizeof hello);
      send_all(host_.get(), message.data(), message.size(), welcome_by_);
    } catch (const SocketError& error) {
      foreign(error.text());
    }
    receive(MessageType::kWelcome, welcome_by_, "");
  }

  [[noreturn]] void foreign(const std::string& detail) {
    refuse(format("rank %d reached %s:%d, but what listens there is not rank 0 of this program (%s). Another program seems to hold "
                  "the port: choose a free MASTER_PORT.",
                  world_.rank, world_.address.c_str(), world_.port, detail.c_str()));
  }

  // The next message, which must be of `type`. `awaited` empty: its sender has not yet shown that it is one of us.
  std::string receive(MessageType type, Deadline deadline, const char* awaited) {
    MessageHeader header;
    std::string body;
    try {
      recv_all(host_.get(), &header, sizeof header, deadline);
      if (!is_ours(header)) foreign("it answered something else");
      if (header.version != kVersion)
        refuse(format("rank %d speaks version %u of the protocol, rank 0 version %u: install the same version everywhere", world_.rank,
                      kVersion, header.version));
      body.resize(header.bytes);
      recv_all(host_.get(), &body[0], body.size(), deadline);
    } catch (const SocketError& error) {
      if (*awaited == 0) foreign(error.text());
      refuse(format("rank %d waited for %s, but %s: %s", world_.rank, awaited, where().c_str(), error.text().c_str()));
    }
    if (header.type == MessageType::kRefused) refuse(body);
    if (header.type != type) refuse(where() + " sent an unexpected message");
    return body;
  }

  World world_;
  const std::atomic<bool>& stop_;
  Fd host_;
  Deadline welcome_by_;
};

}  // namespace

std::string encode(MessageType type, const void* body, size_t bytes) {
  MessageHeader header = {};
  memcpy(header.magic, kMagic, sizeof header.magic);
  header.version = kVersion;
  header.type = type;
  header.bytes = static_cast<uint32_t>(bytes);
  std::string message(reinterpret_cast<const char*>(&header), sizeof header);
  return message.append(static_cast<const char*>(body), bytes);
}

bool is_ours(const MessageHeader& header) {
  return memcmp(header.magic, kMagic, sizeof header.magic) == 0 && header.bytes <= kLongestMessage;
}

void refuse(const std::string& text) { throw Fault{FaultKind::kRendezvous, -1, text}; }

std::unique_ptr<Meeting> join_meeting(const World& world, Deadline deadline, const std::atomic<bool>& stop) {
  return std::make_unique<Guest>(world, deadline, stop);
}

}  // namespace comm
}  // namespace ds
