#pragma once
#include "mesh.h"
#include "operation.h"

namespace ds {
namespace comm {

// The mesh of the ranks that give the same colour, ordered by (key, rank). Every rank of `parent` must call it. The group
// gets links of its own: what two groups do in different orders on different ranks can't block each other.
std::unique_ptr<Mesh> split_mesh(Mesh& parent, const Operation& op, uint64_t sequence, int color, int64_t key);

}  // namespace comm
}  // namespace ds
