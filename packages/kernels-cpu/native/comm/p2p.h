// Sends and receives in flight. They run beside each other, so that two ranks that both send first don't deadlock; those
// to (or from) one peer keep their order.
#pragma once
#include <functional>
#include <list>

#include "mesh.h"
#include "operation.h"

namespace ds {
namespace comm {

class PointToPoint {
 public:
  explicit PointToPoint(Mesh& mesh) : mesh_(mesh) {}
  void add(const Operation& op, uint64_t sequence, std::function<void()> done);
  bool empty() const { return transfers_.empty(); }
  // Moves what can be moved and calls `done` of what is finished; throws a mismatch Fault.
  void pump(bool* moved);

 private:
  struct Transfer {
    Header header;       // of our call
    Header received;     // a receiver's view of the sender's
    bool receives;
    int peer;
    size_t header_left;  // bytes
    char* data;
    size_t left;
    std::function<void()> done;
  };
  bool step(Transfer& transfer, bool* moved);

  Mesh& mesh_;
  std::list<Transfer> transfers_;
};

}  // namespace comm
}  // namespace ds
