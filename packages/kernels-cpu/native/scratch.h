#pragma once
#include <cstddef>

namespace ds {

// Bytes that scratch() holds for all workers.
size_t scratch_bytes();
// Gives them back. Call it only while no kernel runs.
void scratch_release();

}  // namespace ds
