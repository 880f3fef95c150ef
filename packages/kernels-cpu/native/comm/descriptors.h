// Passing file descriptors between processes (SCM_RIGHTS) over unix sockets.
#pragma once
#include <sys/types.h>

#include "socket.h"

namespace ds {
namespace comm {

// `bytes` of data with a descriptor attached (SCM_RIGHTS), over a unix socket.
void send_fd(int fd, const void* data, size_t bytes, int attached, Deadline deadline);
// Receives up to `bytes` without waiting, and the descriptor that came with them if any; -1 with errno as recv does.
ssize_t recv_with_fd(int fd, void* data, size_t bytes, Fd* received);
// One descriptor sent with a single byte, as send_fd(fd, "", 1, ...) does.
Fd recv_fd(int fd, Deadline deadline);

}  // namespace comm
}  // namespace ds
