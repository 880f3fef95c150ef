// Grouped products of 16-bit values on tensor cores: tiles of 128 x 256, eight warps of 64 x 64 each, and four steps of K in shared memory,
// the one that is multiplied among them. A block stays and takes tile after tile. The sum of an element is one chain over k in f32, whatever
// the block that makes it.
//
// An operand lies in shared memory as it does in memory, [row][k] or [k][row], in chunks of 16 bytes whose place in their line is mixed
// with their row, so that neither copies nor the eight rows of a matrix load meet in a bank.
#pragma once
#include "flash/mma.cuh"
#include "grouped.cuh"

namespace ds {
namespace grouped {

using flash::Address;

constexpr int kM = 128, kN = 256, kK = 32, kStages = 4, kThreads = 256;
constexpr int kABytes = kM * kK * 2, kBBytes = kN * kK * 2, kStageBytes = kABytes + kBBytes;
constexpr int kSharedBytes = kStages * kStageBytes;
static_assert(kK == 32, "a step has two halves");

// [row][k]: a row of 32 values is 64 bytes, two rows a line.
__device__ __forceinline__ Address by_rows(int row, int chunk) { return row * (kK * 2) + ((chunk ^ (row >> 1 & 3)) << 4); }
// [k][row], of `width` rows.
template <int width> __device__ __forceinline__ Address by_steps(int k, int chunk) { return k * (width * 2) + ((chunk ^ (k & 7)) << 4); }

// ---- copies: `start` once a tile, then `copy` for k0 = 0, kK, .. -----------------------------------------------------
// Rows of x or dy with k across: kForward and kInput.
template <class T> struct TokenRows {
  const T* row[kM / 64];
  template <class P> __device__ __forceinline__ void start(const P& p, const Tile& t) {
#pragma unroll
    for (int j = 0; j < kM / 64; j++) {
      const int i = t.m0 + int(threadIdx.x) / 4 + j * 64;
      row[j] = i < t.m ? p.a + p.gather_a.row(t.begin + i) * p.lda + threadIdx.x % 4 * 8 : nullptr;
    }
  }
  __device__ __forceinline__ void copy(Address to, const Tile& t, int k0) {
    const int chunk = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < kM / 64; j++)
      flash::copy_async(to + by_rows(threadIdx.x / 4 + j * 64, chunk), row[j] + k0, row[j] != nullptr && k0 + chunk * 8 < t.k);
  }
};

// Rows of a weight with k across: kForward.
template <class T> struct WeightRows {
  const T* from;
  int64_t step;
  template <class P> __device__ __forceinline__ void start(const P& p, const Tile& t) {
    from = p.weight(t.part, t.expert) + int64_t(t.n0 + int(threadIdx.x) / 4) * p.size + threadIdx.x % 4 * 8;
    step = int64_t(64) * p.size;
  }
  __device__ __forceinline__ void copy(Address to, const Tile& t, int k0) {
    const int row = threadIdx.x / 4, chunk = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < kN / 64; j++)
      flash::copy_async(to + by_rows(row + j * 64, chunk), from + j * step + k0, t.n0 + row + j * 64 < t.n && k0 + chunk * 8 < t.k);
  }
};

// Rows of the weights, one below the other, with k down: kInput.
template <class T> struct WeightSteps {
  const T* part[2];
  int out, size;
  template <class P> __device__ __forceinline__ void start(const P& p, const Tile& t) {
    out = p.out, size = p.size;
    part[0] = p.weight(0, t.expert) + t.n0 + threadIdx.x % 32 * 8;
    // So that row k is at (k - out) in the second.
    part[1] = p.parts > 1 ? p.weight(1, t.expert) + t.n0 + threadIdx.x % 32 * 8 : part[0];
  }
  __device__ __forceinline__ void copy(Address to, const Tile& t, int k0) {
    const int chunk = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < kK / 8; j++) {
      const int i = threadIdx.x / 32 + j * 8, k = k0 + i;
      const T* from = k < out ? part[0] + int64_t(k) * size : part[1] + int64_t(k - out) * size;
      flash::copy_async(to + by_steps<kN>(i, chunk), from, k < t.k && t.n0 + chunk * 8 < t.n);
    }
  }
};

// Rows of x or dy, `width` columns of them, with k down: both operands of kWeight. Rows are looked up a step before they are copied.
template <class T, int width> struct TokenSteps {
  static constexpr int kChunks = width / 8, kEach = kThreads / kChunks, kCopies = kK / kEach;
  const T* from;
  int64_t ld;
  Gather gather;
  bool there;
  int row[kCopies];
  __device__ __forceinline__ void start(const T* operand, int64_t stride, const Gather& by, const Tile& t, int column, int columns) {
    from = operand + column + threadIdx.x % kChunks * 8, ld = stride, gather = by;
    there = column + int(threadIdx.x) % kChunks * 8 < columns;
    look(t, 0);
  }
  __device__ __forceinline__ void look(const Tile& t, int k0) {
#pragma unroll
    for (int j = 0; j < kCopies; j++) {
      const int k = k0 + threadIdx.x / kChunks + j * kEach;
      row[j] = k < t.k ? gather.row(t.begin + k) : -1;
    }
  }
  __device__ __forceinline__ void copy(Address to, const Tile& t, int k0) {
#pragma unroll
    for (int j = 0; j < kCopies; j++) {
      const int i = threadIdx.x / kChunks + j * kEach;
      flash::copy_async(to + by_steps<width>(i, threadIdx.x % kChunks), from + row[j] * ld, there && row[j] >= 0);
    }
    look(t, k0 + kK);
  }
};

// ---- fragments of a step of 16 -------------------------------------------------------------------------------------
template <bool down> __device__ __forceinline__ void load_a(uint32_t (&a)[4][4], Address tile, int warp_row, int step) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (down)
      flash::load_matrices_transposed(a[i], tile + by_steps<kM>(step * 16 + lane / 16 * 8 + lane % 8, warp_row * 8 + i * 2 + lane / 8 % 2));
    else
      flash::load_matrices(a[i], tile + by_rows(warp_row * 64 + i * 16 + lane % 16, step * 2 + lane / 16));
  }
}
template <bool down> __device__ __forceinline__ void load_b(uint32_t (&b)[4][4], Address tile, int warp_column, int step) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (down)
      flash::load_matrices_transposed(b[i], tile + by_steps<kN>(step * 16 + lane % 16, warp_column * 8 + i * 2 + lane / 16));
    else
      flash::load_matrices(b[i], tile + by_rows(warp_column * 64 + i * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
  }
}

template <Side side, class T> struct Operands;
template <class T> struct Operands<Side::kForward, T> {
  static constexpr bool a_down = false, b_down = false;
  TokenRows<T> a;
  WeightRows<T> b;
  template <class P> __device__ __forceinline__ void start(const P& p, const Tile& t) { a.start(p, t), b.start(p, t); }
};
template <class T> struct Operands<Side::kInput, T> {
  static constexpr bool a_down = false, b_down = true;
  TokenRows<T> a;
  WeightSteps<T> b;
  template <class P> __device__ __forceinline__ void start(const P& p, const Tile& t) { a.start(p, t), b.start(p, t); }
};
template <class T> struct Operands<Side::kWeight, T> {
  static constexpr bool a_down = true, b_down = true;
  TokenSteps<T, kM> a;
  TokenSteps<T, kN> b;
  template <class P> __device__ __forceinline__ void start(const P& p, const Tile& t) {
    a.start(p.a, p.lda, p.gather_a, t, t.m0, t.m), b.start(p.b, p.ldb, p.gather_b, t, t.n0, t.n);
  }
};

// Two neighbours of a row, the first at an even column; 16-bit results go in one access, f32 ones in one.
template <class TC> __device__ __forceinline__ void store_two(TC* to, float x, float y, bool accumulate) {
  float two[2] = {x, y};
  if (accumulate) {
    float old[2];
    load<2>(to, old);
    two[0] += old[0], two[1] += old[1];
  }
  store<2>(to, two);
}

template <Side side, class T, class TC>
__global__ void __launch_bounds__(kThreads, 1) multiply_mma(const __grid_constant__ Product<T, TC> p) {
  const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 % 2, warp_column = threadIdx.x / 64;
  const Address room = flash::shared_memory();
  using Pair = Operands<side, T>;
  Walk<side, kM, kN> walk;
  Tile t;
  for (int64_t index = blockIdx.x; walk.find(p, index, t); index += gridDim.x) {
    Pair pair;
    pair.start(p, t);
    const int steps = (t.k + kK - 1) / kK;
    // An empty group where there is nothing to copy: groups are counted.
    const auto fill = [&](int step) {
      if (step < steps) {
        const Address stage = room + step % kStages * kStageBytes;
        pair.a.copy(stage, t, step * kK);
        pair.b.copy(stage + kABytes, t, step * kK);
      }
      flash::end_copies();
    };
    float c[4][8][4] = {};
#pragma unroll
    for (int step = 0; step < kStages - 1; step++) fill(step);
    // Fragments of a half are loaded while those of the half before are multiplied, across the steps too.
    uint32_t a[2][4][4], b[2][4][4];
    const auto load_half = [&](int step, int half) {
      const Address stage = room + step % kStages * kStageBytes;
      load_a<Pair::a_down>(a[half], stage, warp_row, half);
      load_b<Pair::b_down>(b[half], stage + kABytes, warp_column, half);
    };
    const auto multiply_half = [&](int half) {
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          flash::multiply<T>(c[i][2 * j], a[half][i], b[half][j][0], b[half][j][1]);
          flash::multiply<T>(c[i][2 * j + 1], a[half][i], b[half][j][2], b[half][j][3]);
        }
    };
    // A step's copies are everybody's now, and all have loaded what they need of the step before it.
    const auto await_step = [] {
      flash::await_copies<kStages - 2>();
      __syncthreads();
    };
    await_step();
    load_half(0, 0);
    for (int step = 0; step < steps; step++) {
      load_half(step, 1);
      fill(step + kStages - 1);
      multiply_half(0);
      await_step();
      load_half(step + 1, 0);  // after the last step it is of no use
      multiply_half(1);
    }
    flash::copies_done();
    __syncthreads();  // the next tile's copies go where this one's were
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = t.m0 + warp_row * 64 + i * 16 + half * 8 + lane / 4;
        if (row >= t.m) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int column = t.n0 + warp_column * 64 + j * 8 + lane % 4 * 2;
          if (column < t.n) store_two(target<side>(p, t, row, column), c[i][j][2 * half], c[i][j][2 * half + 1], p.accumulate);
        }
      }
  }
}

}  // namespace grouped
}  // namespace ds
