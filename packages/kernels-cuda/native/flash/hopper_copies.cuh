// Hopper's barriers in shared memory and the copies that report to them: tiles by tensor map, plain runs of bytes, and sums into
// global memory.
#pragma once
#include <cuda.h>

#include "flash/mma.cuh"

namespace ds {
namespace flash {

// A wait that never ends is a mistake in a kernel: builds for checks (DS_HOPPER_BAILOUT) give up after 2^28 cycles, and with
// them all later waits. (A trap would do, but ptxas then ignores setmaxnreg.)
#ifdef DS_HOPPER_BAILOUT
__device__ int hopper_gave_up;
#endif
struct Patience {
#ifdef DS_HOPPER_BAILOUT
  unsigned since = now();
  static __device__ __forceinline__ unsigned now() {
    unsigned x;
    asm volatile("mov.u32 %0, %%clock;\n" : "=r"(x));
    return x;
  }
  __device__ __forceinline__ bool ended() const {
    volatile int* flag = &hopper_gave_up;
    if (now() - since > 1u << 28) *flag = 1;
    return *flag != 0;
  }
#else
  __device__ __forceinline__ bool ended() const { return false; }
#endif
};

__device__ __forceinline__ void barrier_start(Address barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_expect(Address barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(Address barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
// Until the phase of this parity is over; the phase before the first counts as over, with parity 1.
__device__ __forceinline__ void barrier_wait(Address barrier, int parity) {
  const Patience patience;
  for (;;) {
    uint32_t done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (done || patience.ended()) return;
  }
}
template <int id, int threads> __device__ __forceinline__ void meet() { asm volatile("bar.sync %0, %1;\n" ::"n"(id), "n"(threads) : "memory"); }
__device__ __forceinline__ void meet(int id, int threads) { asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory"); }

// Writes to shared memory become visible to products and bulk copies.
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async;\n" ::: "memory"); }

// 64 columns x 64 tokens of one head.
__device__ __forceinline__ void copy_box(Address to, const CUtensorMap* map, int column, int head, int token, int sequence, Address barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];\n" ::"r"(to),
      "l"(map), "r"(column), "r"(head), "r"(token), "r"(sequence), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void copy_bytes(Address to, const void* from, int bytes, Address barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void store_bytes(float* to, Address from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(to), "r"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void add_floats(float* to, Address from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n" ::"l"(to), "r"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
// Shared memory may be written again; and: what was written is in global memory.
__device__ __forceinline__ void bulk_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory"); }
__device__ __forceinline__ void bulk_wait() { asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory"); }

__device__ __forceinline__ unsigned load_acquire(const unsigned* from) {
  unsigned x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(x) : "l"(from) : "memory");
  return x;
}
__device__ __forceinline__ void store_release(unsigned* to, unsigned x) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;\n" ::"l"(to), "r"(x) : "memory");
}

// Four 8 x 8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrices(Address row, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};\n" ::"r"(row), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}
__device__ __forceinline__ void store_shared(Address to, float x, float y, float z, float w) {
  asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};\n" ::"r"(to), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
}

}  // namespace flash
}  // namespace ds
