#include <errno.h>
#include <poll.h>

#include <vector>

#include "link.h"

namespace ds {
namespace comm {
namespace {

class TcpLink : public Link {
 public:
  explicit TcpLink(Fd data) : fd_(std::move(data)) {
    int bytes = 4 * 1024 * 1024;  // the kernel cuts this to its own limit
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }

  size_t send(const void* data, size_t bytes) override {
    ssize_t sent = ::send(fd_.get(), data, bytes, MSG_NOSIGNAL);
    if (sent > 0) return static_cast<size_t>(sent);
    clogged = true;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) dead = true;
    return 0;
  }

  size_t recv(void* data, size_t bytes) override {
    ssize_t got = ::recv(fd_.get(), data, bytes, 0);
    if (got > 0) return static_cast<size_t>(got);
    starved = true;
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) dead = true;
    return 0;
  }

  const void* peek(size_t bytes) override {
    if (chunk_.empty()) chunk_.resize(kChunk);
    while (filled_ < bytes) {
      size_t got = recv(chunk_.data() + filled_, bytes - filled_);
      if (got == 0) return nullptr;
      filled_ += got;
    }
    return chunk_.data();
  }
  void drop() override { filled_ = 0; }

  int poll_fd() const override { return dead ? -1 : fd_.get(); }
  short poll_events() const override { return static_cast<short>((starved ? POLLIN : 0) | (clogged ? POLLOUT : 0)); }

 private:
  Fd fd_;
  std::vector<char> chunk_;  // allocated when first needed
  size_t filled_ = 0;
};

}  // namespace

std::unique_ptr<Link> make_tcp_link(Fd data) { return std::make_unique<TcpLink>(std::move(data)); }

}  // namespace comm
}  // namespace ds
