// Errors inside native/comm travel as this one exception; it never leaves the communicator's thread.
#pragma once
#include <string>

namespace ds {
namespace comm {

enum class FaultKind : int { kPeerLost = 1, kMismatch = 2, kRendezvous = 3, kInternal = 4 };

struct Fault {
  FaultKind kind;
  int peer;  // the rank that the fault is about, -1: none in particular
  std::string text;
};

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace comm
}  // namespace ds
