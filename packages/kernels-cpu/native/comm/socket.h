// Sockets without surprises: non-blocking, close-on-exec, every wait bounded by a deadline.
#pragma once
#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace ds {
namespace comm {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline Deadline in_ms(int64_t ms) { return Clock::now() + std::chrono::milliseconds(ms); }
int ms_left(Deadline deadline);  // never negative

// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

// What went wrong on a socket: an errno, kEof (the other side closed) or kLate (the deadline passed).
constexpr int kEof = -1;
constexpr int kLate = -2;
struct SocketError {
  int code;
  std::string text() const;
};

struct Address {
  sockaddr_storage storage;
  socklen_t length = 0;
  std::string host() const;  // numeric
  int port() const;
  void set_port(int port);
  bool is_loopback() const;
};

// All addresses of a host name; empty and `error` set when it can't be resolved.
std::vector<Address> resolve(const std::string& host, int port, std::string* error);

// Whether a name stands for loopback on every host, as `localhost` does and a host's own name in /etc/hosts does not.
bool names_loopback(const std::string& host);
// An address of this host that others may reach, of the family of `*address`; false: there is none.
bool external_address(Address* address);

// Listens on one address (port 0: any free port). Throws SocketError.
Fd listen_tcp(const Address& address);
Fd connect_tcp(const Address& address, Deadline deadline);
// Abstract names: the kernel forgets them with the process, nothing lies in the file system.
Fd listen_unix(const std::string& name);
Fd connect_unix(const std::string& name, Deadline deadline);
Fd accept_one(int listener, Deadline deadline);
Address local_address(int fd);
Address peer_address(int fd);

// Waits for `events` (POLLIN, POLLOUT) on one descriptor; false when the deadline passes first.
bool wait_for(int fd, short events, Deadline deadline);

// Throw SocketError unless all bytes went through before the deadline.
void send_all(int fd, const void* data, size_t bytes, Deadline deadline);
void recv_all(int fd, void* data, size_t bytes, Deadline deadline);

}  // namespace comm
}  // namespace ds
