// Hopper's warpgroup products (wgmma): d [64 x N] += a b by four warps together. Operands lie in shared memory in rows of 128
// bytes under the 128-byte swizzle, or a in registers. The index summed over runs along an operand's rows, or, for an operand
// named transposed (ta, tb), across them.
//
// Accumulator of warp w, lane l, g = l / 4, t = l % 4: d[4 n + r] is row 16 w + g + 8 (r / 2), column 8 n + 2 t + r % 2.
#pragma once
#include "flash/mma.cuh"

namespace ds {
namespace flash {

// Descriptor of an operand at `at`, in a tile that starts at a multiple of 1024: eight rows of 128 bytes are 1024 bytes; `panel`
// bytes lie between panels of 64 columns (what a transposed operand wider than one panel needs).
__device__ __forceinline__ uint64_t operand(Address at, uint32_t panel = 16) {
  return uint64_t((at & 0x3ffff) >> 4) | uint64_t(panel >> 4) << 16 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int left> __device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(left) : "memory");
}
// Keeps the compiler from moving reads and writes of accumulators over a wait.
template <int N> __device__ __forceinline__ void pin(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define DS_WGMMA_LIST_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DS_WGMMA_D_32 \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define DS_WGMMA_LIST_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DS_WGMMA_D_64 \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
  "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
  "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
  "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
  "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])

// Both operands in shared memory; add == 0 starts from zero.
#define DS_WGMMA_SHARED(N, R, TYPE, TYPES, A, B, S, TA, TB)                                                                   \
  template <int ta, int tb> __device__ __forceinline__ void wgmma(Tag<TYPE>, float (&d)[R], uint64_t a, uint64_t b, int add) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" S ", 0;\nwgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPES " {"      \
                 DS_WGMMA_LIST_##R "}, %" A ", %" B ", p, 1, 1, %" TA ", %" TB ";\n}\n"                                      \
                 : DS_WGMMA_D_##R                                                                                            \
                 : "l"(a), "l"(b), "r"(add), "n"(ta), "n"(tb));                                                              \
  }
// a in registers, as fragments of 16 x 16.
#define DS_WGMMA_FRAGMENT(N, R, TYPE, TYPES, A0, A1, A2, A3, B, TB)                                                           \
  template <int tb> __device__ __forceinline__ void wgmma(Tag<TYPE>, float (&d)[R], const uint32_t (&a)[4], uint64_t b) {     \
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\nwgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPES " {" DS_WGMMA_LIST_##R "}, {%" A0 ", %" A1 ", %" A2   \
                 ", %" A3 "}, %" B ", p, 1, 1, %" TB ";\n}\n"                                                                   \
                 : DS_WGMMA_D_##R                                                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(tb));                                             \
  }
DS_WGMMA_SHARED("64", 32, bf16, "bf16.bf16", "32", "33", "34", "35", "36")
DS_WGMMA_SHARED("64", 32, f16, "f16.f16", "32", "33", "34", "35", "36")
DS_WGMMA_SHARED("128", 64, bf16, "bf16.bf16", "64", "65", "66", "67", "68")
DS_WGMMA_SHARED("128", 64, f16, "f16.f16", "64", "65", "66", "67", "68")
DS_WGMMA_FRAGMENT("64", 32, bf16, "bf16.bf16", "32", "33", "34", "35", "36", "37")
DS_WGMMA_FRAGMENT("64", 32, f16, "f16.f16", "32", "33", "34", "35", "36", "37")
DS_WGMMA_FRAGMENT("128", 64, bf16, "bf16.bf16", "64", "65", "66", "67", "68", "69")
DS_WGMMA_FRAGMENT("128", 64, f16, "f16.f16", "64", "65", "66", "67", "68", "69")
#undef DS_WGMMA_SHARED
#undef DS_WGMMA_FRAGMENT
#undef DS_WGMMA_LIST_32
#undef DS_WGMMA_LIST_64
#undef DS_WGMMA_D_32
#undef DS_WGMMA_D_64

}  // namespace flash
}  // namespace ds
