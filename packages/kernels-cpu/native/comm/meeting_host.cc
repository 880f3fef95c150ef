#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "meeting.h"

namespace ds {
namespace comm {
namespace {

constexpr int kSliceMs = 200;
// After a refusal rank 0 stays this long to tell latecomers the reason.
constexpr int64_t kFarewellMs = 2000;

struct Caller {
  Fd fd;
  std::string inbox;
  int rank = -1;  // known after its Hello
  bool ready = false;
  Hello hello = {};
};

class Host : public Meeting {
 public:
  Host(const World& world, Deadline deadline, const std::atomic<bool>& stop) : world_(world), stop_(stop) {
    open();
    while (missing() > 0) {
      if (Clock::now() >= deadline) turn_away(absent());
      serve(deadline);
    }
    token = random_token();
    table.resize(static_cast<size_t>(world.size));
    table[0] = doors.endpoint;
    for (Caller& caller : callers_)
      if (caller.rank > 0) table[static_cast<size_t>(caller.rank)] = caller.hello.endpoint;
    std::string body(reinterpret_cast<const char*>(&token), sizeof token);
    body.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(Endpoint));
    tell(MessageType::kTable, body);
    mesh_deadline = in_ms(kMeshMs);
  }

  void conclude(const std::string& problem) override {
    if (!problem.empty()) turn_away(problem);
    auto waiting = [&] {
      for (Caller& caller : callers_)
        if (caller.rank > 0 && !caller.ready) return true;
      return false;
    };
    while (waiting()) {
      if (Clock::now() >= mesh_deadline) turn_away("not every rank could connect to every other in time");
      serve(mesh_deadline);
    }
    tell(MessageType::kGo, "");
  }

 private:
  void open() {
    std::string error = "no address";
    std::vector<Address> addresses = resolve(world_.address, world_.port, &error);
    if (addresses.empty()) refuse(format("rank 0 can't resolve MASTER_ADDR %s: %s", world_.address.c_str(), error.c_str()));
    Address address = addresses[0];
    // The name may be mapped to loopback here, or belong to an address translator in front of this host: listen everywhere.
    if (!names_loopback(world_.address)) {
      if (address.storage.ss_family == AF_INET6)
        reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_addr = in6addr_any;
      else
        reinterpret_cast<sockaddr_in*>(&address.storage)->sin_addr.s_addr = INADDR_ANY;
    }
    try {
      listener_ = listen_tcp(address);
      doors = open_doors(0, world_.host_id, address);
    } catch (const SocketError& problem) {
      const char* way_out = problem.code == EADDRINUSE ? " Another process (an earlier run, perhaps) holds it: stop that, or choose another MASTER_PORT." : "";
      refuse(format("rank 0 can't listen at %s:%d: %s.%s", world_.address.c_str(), world_.port, problem.text().c_str(), way_out));
    }
  }

  int missing() const {
    int count = world_.size - 1;
    for (const Caller& caller : callers_) count -= caller.rank > 0;
    return count;
  }

  std::string absent() const {
    std::vector<bool> present(static_cast<size_t>(world_.size));
    for (const Caller& caller : callers_)
      if (caller.rank > 0) present[static_cast<size_t>(caller.rank)] = true;
    std::string list;
    for (int r = 1; r < world_.size && list.size() < 200; r++)
      if (!present[static_cast<size_t>(r)]) list += format("%s%d", list.empty() ? "" : ", ", r);
    return format("%d of %d ranks never came to %s:%d within %.1f s: rank %s. Were they started, with the same MASTER_ADDR and "
                  "MASTER_PORT, and is WORLD_SIZE=%d right?",
                  missing(), world_.size, world_.address.c_str(), world_.port, static_cast<double>(world_.timeout_ms) / 1000,
                  list.c_str(), world_.size);
  }

  void tell(MessageType type, const std::string& body) {
    std::string message = encode(type, body.data(), body.size());
    for (Caller& caller : callers_) {
      if (caller.rank < 0) continue;
      try {
        send_all(caller.fd.get(), message.data(), message.size(), in_ms(1000));
      } catch (const SocketError&) {
        // It has gone by itself.
      }
    }
  }

  // Gives up and tells everybody why: those who are there, and for a moment those who still come.
  [[noreturn]] void turn_away(const std::string& reason) {
    tell(MessageType::kRefused, reason);
    refused_ = reason;
    Deadline farewell = in_ms(kFarewellMs);
    while (missing() > 0 && Clock::now() < farewell && !stop_) serve(farewell);
    refuse(reason);
  }

  // Waits a little, then takes new callers and what the known ones say.
  void serve(Deadline deadline) {
    if (stop_) refuse("the rendezvous was cancelled");
    std::vector<pollfd> entries = {{listener_.get(), POLLIN, 0}};
    for (Caller& caller : callers_) entries.push_back({caller.fd.get(), POLLIN, 0});
    int wait = ms_left(deadline);
    if (poll(entries.data(), entries.size(), wait < kSliceMs ? wait : kSliceMs) <= 0) return;
    for (size_t i = callers_.size(); i-- > 0;)
      if (entries[i + 1].revents != 0 && !listen_to(callers_[i])) callers_.erase(callers_.begin() + static_cast<ptrdiff_t>(i));
    if (entries[0].revents & POLLIN) {
      Caller caller;
      caller.fd = accept_one(listener_.get(), deadline);
      callers_.push_back(std::move(caller));
    }
  }

  // False when the connection has ended or was never one of ours.
  bool listen_to(Caller& caller) {
    char bytes[4096];
    ssize_t got = recv(caller.fd.get(), bytes, sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) {
      if (caller.rank > 0 && refused_.empty())
        turn_away(format("%s ended before all ranks were connected", name(caller).c_str()));
      return false;
    }
    caller.inbox.append(bytes, static_cast<size_t>(got));
    MessageHeader header;
    if (caller.inbox.size() < sizeof header) return true;
    memcpy(&header, caller.inbox.data(), sizeof header);
    if (!is_ours(header)) return false;
    if (caller.inbox.size() < sizeof header + header.bytes) return true;
    std::string body = caller.inbox.substr(sizeof header, header.bytes);
    caller.inbox.erase(0, sizeof header + header.bytes);
    if (header.type == MessageType::kReady) {
      caller.ready = true;
      if (!body.empty() && refused_.empty()) turn_away(body);
      return true;
    }
    return header.type == MessageType::kHello && admit(caller, header, body);
  }

  bool admit(Caller& caller, const MessageHeader& header, const std::string& body) {
    auto answer = [&](MessageType type, const std::string& text) {
      std::string message = encode(type, text.data(), text.size());
      try {
        send_all(caller.fd.get(), message.data(), message.size(), in_ms(1000));
      } catch (const SocketError&) {
      }
    };
    if (header.version != kVersion || body.size() != sizeof(Hello)) {
      answer(MessageType::kRefused, "rank 0 runs another version of the protocol: install the same version everywhere");
      return false;
    }
    Hello hello;
    memcpy(&hello, body.data(), sizeof hello);
    if (world_.job.substr(0, sizeof hello.job - 1) != hello.job) {
      answer(MessageType::kRefused, format("rank 0 at %s:%d belongs to another job (%s, not %s): choose another MASTER_PORT",
                                           world_.address.c_str(), world_.port, world_.job.c_str(), hello.job));
      return false;
    }
    if (!refused_.empty()) {
      answer(MessageType::kRefused, refused_);
      return false;
    }
    answer(MessageType::kWelcome, "");
    const Caller* twin = nullptr;
    for (Caller& other : callers_)
      if (other.rank == hello.rank) twin = &other;
    caller.hello = hello;
    std::string problem;
    if (hello.size != world_.size)
      problem = format("ranks disagree about the world size: rank 0 has WORLD_SIZE=%d, %s has %d", world_.size, name(caller).c_str(), hello.size);
    else if (hello.rank <= 0 || hello.rank >= world_.size)
      problem = format("%s is not a rank of a world of %d%s", name(caller).c_str(), world_.size, hello.rank == 0 ? " twice: there is one rank 0 already" : "");
    else if (twin != nullptr)
      problem = format("two processes say that they are rank %d: %s and %s. Give every process its own RANK.", hello.rank, name(*twin).c_str(), name(caller).c_str());
    // Known from here on, so that it hears the reason too.
    caller.rank = problem.empty() ? hello.rank : 0;
    if (!problem.empty()) turn_away(problem);
    return true;
  }

  static std::string name(const Caller& caller) {
    return format("rank %d (%s, pid %d)", caller.hello.rank, caller.hello.host_name, caller.hello.endpoint.pid);
  }

  World world_;
  const std::atomic<bool>& stop_;
  Fd listener_;
  std::vector<Caller> callers_;
  std::string refused_;
};

}  // namespace

std::unique_ptr<Meeting> host_meeting(const World& world, Deadline deadline, const std::atomic<bool>& stop) {
  return std::make_unique<Host>(world, deadline, stop);
}

}  // namespace comm
}  // namespace ds
