// The one thread pool. The thread that calls parallel() (the stream's) is worker 0; the pool owns the others.
#pragma once
#include "kernel.h"

namespace ds {

constexpr int kMaxThreads = 256;

// DEEPSPEED_TS_THREADS, else the CPUs of this process divided among the ranks of the host (LOCAL_WORLD_SIZE), at least 1.
int default_threads();

// Starts or stops helpers; n counts the caller. Call it from the thread that calls parallel(), outside parallel().
void pool_set_threads(int n);

}  // namespace ds
