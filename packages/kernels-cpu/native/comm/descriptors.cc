#include "descriptors.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

namespace ds {
namespace comm {

void send_fd(int fd, const void* data, size_t bytes, int attached, Deadline deadline) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec part = {const_cast<void*>(data), bytes};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &attached, sizeof attached);
  for (;;) {
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent >= 0) {
      // The descriptor went with the first byte; the rest is plain data.
      send_all(fd, static_cast<const char*>(data) + sent, bytes - static_cast<size_t>(sent), deadline);
      return;
    }
    if (errno == EAGAIN) {
      if (!wait_for(fd, POLLOUT, deadline)) throw SocketError{kLate};
    } else if (errno != EINTR) {
      throw SocketError{errno};
    }
  }
}

ssize_t recv_with_fd(int fd, void* data, size_t bytes, Fd* received) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec part = {data, bytes};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  if (got <= 0) return got;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int descriptor;
    memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
    *received = Fd(descriptor);
  }
  return got;
}

Fd recv_fd(int fd, Deadline deadline) {
  for (;;) {
    char byte;
    Fd received;
    ssize_t got = recv_with_fd(fd, &byte, 1, &received);
    if (got == 0) throw SocketError{kEof};
    if (got == 1) {
      if (!received) throw SocketError{EPROTO};
      return received;
    }
    if (errno == EAGAIN) {
      if (!wait_for(fd, POLLIN, deadline)) throw SocketError{kLate};
    } else if (errno != EINTR) {
      throw SocketError{errno};
    }
  }
}

}  // namespace comm
}  // namespace ds
