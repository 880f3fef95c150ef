#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdarg>
#include <cstddef>

#include "fault.h"

namespace ds {
namespace comm {
namespace {

[[noreturn]] void fail(int code) { throw SocketError{code}; }

Fd open_socket(int family) {
  Fd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) fail(errno);
  return fd;
}

void tune_tcp(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // A host that vanishes without a FIN is noticed after about 25 s.
  int idle = 10, interval = 5, probes = 3;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

Fd connect_any(Fd fd, const sockaddr* address, socklen_t length, Deadline deadline) {
  if (connect(fd.get(), address, length) == 0) return fd;
  if (errno != EINPROGRESS && errno != EAGAIN) fail(errno);
  if (!wait_for(fd.get(), POLLOUT, deadline)) fail(kLate);
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) fail(error);
  return fd;
}

socklen_t unix_address(const std::string& name, sockaddr_un* address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path + 1, name.data(), name.size());  // the leading zero byte makes it abstract
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

}  // namespace

std::string format(const char* pattern, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

int ms_left(Deadline deadline) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return left < 0 ? 0 : left > 1000000000 ? 1000000000 : static_cast<int>(left);
}

Fd& Fd::operator=(Fd&& other) noexcept {
  reset();
  fd_ = other.release();
  return *this;
}
int Fd::release() {
  int fd = fd_;
  fd_ = -1;
  return fd;
}
void Fd::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

std::string SocketError::text() const {
  if (code == kEof) return "the other side closed the connection";
  if (code == kLate) return "no answer in time";
  char buffer[128];
  return strerror_r(code, buffer, sizeof buffer);
}

std::string Address::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET6)
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr, text, sizeof text);
  else
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, text, sizeof text);
  return text;
}
// sin_port and sin6_port lie at the same place.
int Address::port() const { return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port); }
void Address::set_port(int port) {
  reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(static_cast<uint16_t>(port));
}
bool Address::is_loopback() const {
  if (storage.ss_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr);
  return (ntohl(reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr.s_addr) >> 24) == 127;
}

std::vector<Address> resolve(const std::string& host, int port, std::string* error) {
  addrinfo hints = {}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  std::vector<Address> found;
  int code = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (code != 0) {
    *error = gai_strerror(code);
    return found;
  }
  for (addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    Address address;
    memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
    address.length = entry->ai_addrlen;
    address.set_port(port);
    found.push_back(address);
  }
  freeaddrinfo(list);
  return found;
}

bool names_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.compare(0, 4, "127.") == 0;
}

bool external_address(Address* address) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return false;
  bool found = false;
  for (ifaddrs* entry = list; entry != nullptr && !found; entry = entry->ifa_next) {
    bool usable = entry->ifa_addr != nullptr && (entry->ifa_flags & IFF_UP) != 0 && (entry->ifa_flags & IFF_LOOPBACK) == 0;
    if (!usable || entry->ifa_addr->sa_family != address->storage.ss_family) continue;
    memcpy(&address->storage, entry->ifa_addr, address->length);
    found = true;
  }
  freeifaddrs(list);
  return found;
}

Fd listen_tcp(const Address& address) {
  Fd fd = open_socket(address.storage.ss_family);
  int on = 1;
  // Only lets a port be taken again while old connections linger in TIME_WAIT; a live listener still gives EADDRINUSE.
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0) fail(errno);
  if (listen(fd.get(), 1024) != 0) fail(errno);
  return fd;
}

Fd connect_tcp(const Address& address, Deadline deadline) {
  Fd fd = open_socket(address.storage.ss_family);
  tune_tcp(fd.get());
  return connect_any(std::move(fd), reinterpret_cast<const sockaddr*>(&address.storage), address.length, deadline);
}

Fd listen_unix(const std::string& name) {
  sockaddr_un address;
  socklen_t length = unix_address(name, &address);
  Fd fd = open_socket(AF_UNIX);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) fail(errno);
  if (listen(fd.get(), 1024) != 0) fail(errno);
  return fd;
}

Fd connect_unix(const std::string& name, Deadline deadline) {
  sockaddr_un address;
  socklen_t length = unix_address(name, &address);
  return connect_any(open_socket(AF_UNIX), reinterpret_cast<sockaddr*>(&address), length, deadline);
}

Fd accept_one(int listener, Deadline deadline) {
  for (;;) {
    Fd fd(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      tune_tcp(fd.get());  // does nothing on a unix socket
      return fd;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno != EAGAIN) fail(errno);
    if (!wait_for(listener, POLLIN, deadline)) fail(kLate);
  }
}

Address local_address(int fd) {
  Address address;
  address.length = sizeof address.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}
Address peer_address(int fd) {
  Address address;
  address.length = sizeof address.storage;
  getpeername(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

bool wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    pollfd entry = {fd, events, 0};
    int ready = poll(&entry, 1, ms_left(deadline));
    if (ready > 0) return true;
    if (ready == 0 && Clock::now() >= deadline) return false;
    if (ready < 0 && errno != EINTR) fail(errno);
  }
}

void send_all(int fd, const void* data, size_t bytes, Deadline deadline) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
    if (sent >= 0) {
      at += sent;
      bytes -= static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      if (!wait_for(fd, POLLOUT, deadline)) fail(kLate);
    } else if (errno != EINTR) {
      fail(errno);
    }
  }
}

void recv_all(int fd, void* data, size_t bytes, Deadline deadline) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    ssize_t got = recv(fd, at, bytes, 0);
    if (got > 0) {
      at += got;
      bytes -= static_cast<size_t>(got);
    } else if (got == 0) {
      fail(kEof);
    } else if (errno == EAGAIN) {
      if (!wait_for(fd, POLLIN, deadline)) fail(kLate);
    } else if (errno != EINTR) {
      fail(errno);
    }
  }
}

}  // namespace comm
}  // namespace ds
