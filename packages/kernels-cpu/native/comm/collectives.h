#pragma once
#include "mesh.h"
#include "operation.h"

namespace ds {
namespace comm {

// Runs one collective to its end on this rank; throws a Fault.
void run_collective(Mesh& mesh, const Operation& op, uint64_t sequence);

}  // namespace comm
}  // namespace ds
