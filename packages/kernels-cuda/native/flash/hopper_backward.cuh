// dQ, dK and dV in one kernel of Hopper's own instructions. A block of threads stays on its multiprocessor and takes one task after the
// other: 128 keys of one key head, over the queries of its group's heads. Two warpgroups of 64 keys each compute, one thread fetches tiles
// by tensor map ahead, also those of the next task, one adds dQ's tiles to global memory (hopper_supply.cuh). Scores are made transposed,
// keys down: P' and dS' then come out of their products in the very registers in which dV += P' dY and dK += dS' Q take them; dQ = dS K takes
// dS' through shared memory.
//
// Every sum has one order. dQ of a tile of queries is the sum of what the blocks of keys add, one after the other: a counter per tile
// says whose turn it is. A task waits only for tasks with earlier tickets; the earliest that is not done runs already, so somebody
// always goes on. The last to add finishes dQ where the order of tasks makes it always the first block of keys; else a pass of its own does.
#pragma once
#include "flash/hopper_supply.cuh"
#include "flash/hopper_wgmma.cuh"

namespace ds {
namespace flash {

template <class T> __device__ __forceinline__ float2 unpack(uint32_t two);
template <> __device__ __forceinline__ float2 unpack<bf16>(uint32_t two) {
  return make_float2(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 unpack<f16>(uint32_t two) {
  return __half22float2(*reinterpret_cast<const __half2*>(&two));
}

// A warp's 16 rows of 64 columns, four fragments of 16 columns, go through shared memory to `to`, in accesses of 16 bytes. Rows lie at
// room(row), a multiple of 128 apart, under the swizzle of row % 8. Rows from `rows_there` on are not stored.
template <class T, class Room, class Value>
__device__ __forceinline__ void store_strip(const Room& room, const Value& value, T* to, int64_t stride, int rows_there) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    uint32_t x[4];
#pragma unroll
    for (int r = 0; r < 4; r++) x[r] = pack<T>(value(8 * k + 2 * r), value(8 * k + 2 * r + 1));
    store_matrices(room(lane % 16) + ((2 * k + lane / 16) ^ lane % 8) * 16, x);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int row = i * 4 + lane / 8, chunk = lane % 8;
    if (row < rows_there) *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) = load_shared(room(row) + (chunk ^ row % 8) * 16);
  }
  __syncwarp();
}

// dQ's tiles lie as the accumulators do: 16 bytes of column group c of thread t (of 256) at 256 c + t.
template <class T, int D, bool causal, bool diagonal>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_backward_kernel(const Shape s, const HopperTasks tasks, const __grid_constant__ CUtensorMap qkv_map,
                           const __grid_constant__ CUtensorMap dy_map, const Statistics rows, float* dq, unsigned* counters, T* dqkv) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tile = HopperTile<D>;
  constexpr int kKeys = kHopperKeys, kQueries = Tile::queries, kPanels = D / 64, kKeyPanel = Tile::key_panel, kQueryPanel = Tile::query_panel;
  constexpr int kBuffers = Tile::buffers;
  // The scores of the next step begin while dQ is handed over. (Measured on an H200: with head size 64, whose tiles of scores are twice as
  // large, that costs more than it gains.)
  constexpr bool kAhead = D == 128;
  static_assert(causal || !diagonal, "without a mask no block of keys is a tile's last");
  extern __shared__ __align__(1024) unsigned char hopper_memory[];
  const HopperRooms<D> rooms = {(Address(__cvta_generic_to_shared(hopper_memory)) + 1023) & ~1023u};
  if (threadIdx.x == 0) rooms.start_barriers();
  __syncthreads();
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\n");
    if (warp == 0 && lane == 0) hopper_fetch<D, causal, diagonal>(s, tasks, rooms, qkv_map, dy_map, rows, counters);
    if (warp >= 1 && warp <= kBuffers && lane == 0) hopper_hand_over<D, causal, diagonal>(s, tasks, rooms, dq, counters, warp - 1);
    return;
  }

  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\n");
  const int group = threadIdx.x / 128 - 1, t = lane % 4, own = group * 64 + warp * 16;
  constexpr Tag<T> type{};
  const float scale = s.scale * kLog2E;
  const uint64_t k_rows = operand(rooms.keys() + group * 8192), v_rows = operand(rooms.values() + group * 8192);
  // dQ: a warpgroup makes 64 queries, or half of the columns.
  const uint64_t k_sums = operand(rooms.keys() + (kQueries == 64 ? group * kKeyPanel : 0));
  const int row16 = lane % 16, chunk16 = lane / 16;
  int g = 0;  // steps so far
#pragma unroll 1
  for (int nth = 0;; nth++) {
    const unsigned ticket = rooms.ticket(nth);
    if (ticket >= tasks.count) break;
    const HopperTask<D, causal, diagonal> task(s, tasks, ticket);
    const int j0 = task.n * kKeys;
    float dk[D / 2] = {}, dv[D / 2] = {}, p[kQueries / 2];
    const auto start_scores = [&](int at) {
      const uint64_t q_rows = operand(rooms.queries(at % 2));
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < D / 16; k++)
        wgmma<0, 0>(type, p, k_rows + (k / 4 * kKeyPanel + k % 4 * 32) / 16, q_rows + (k / 4 * kQueryPanel + k % 4 * 32) / 16, k);
      wgmma_commit();
    };
    barrier_wait(rooms.keys_full(), nth % 2);
    if constexpr (kAhead) {
      barrier_wait(rooms.full(g % 2), g / 2 % 2);
      start_scores(g);
      wgmma_wait<0>();
      pin(p);
    }
#pragma unroll 1
    for (int step = 0; step < task.steps; step++, g++) {
      const int stage = g % 2, i0 = task.tile(s, step) * kQueries;
      const Address q = rooms.queries(stage), y = rooms.gradients(stage), lse = rooms.rows(stage) + 8 * t;
      float ds[kQueries / 2];
      const uint64_t y_rows = operand(y);
      if constexpr (kAhead) {
        wgmma_fence();
      } else {
        barrier_wait(rooms.full(stage), g / 2 % 2);
        start_scores(g);
      }
#pragma unroll
      for (int k = 0; k < D / 16; k++)
        wgmma<0, 0>(type, ds, v_rows + (k / 4 * kKeyPanel + k % 4 * 32) / 16, y_rows + (k / 4 * kQueryPanel + k % 4 * 32) / 16, k);
      wgmma_commit();
      if constexpr (!kAhead) {
        wgmma_wait<1>();
        pin(p);
      }
      const bool edge = causal ? j0 + group * 64 + 63 > i0 : j0 + kKeys > s.tokens;
      const int j = j0 + own + lane / 4 - (causal ? i0 + 2 * t : 0);
#pragma unroll
      for (int c = 0; c < kQueries / 8; c++) {
        const float2 row = load_shared_floats(lse + 32 * c);
#pragma unroll
        for (int r = 0; r < 4; r++) p[4 * c + r] = exp2_fast(fmaf(p[4 * c + r], scale, -(r % 2 ? row.y : row.x)));
      }
      if (edge) {
#pragma unroll
        for (int c = 0; c < kQueries / 8; c++)
#pragma unroll
          for (int r = 0; r < 4; r++)
            if (causal ? j + r / 2 * 8 > 8 * c + r % 2 : j + r / 2 * 8 >= s.tokens) p[4 * c + r] = 0;
      }
      uint32_t fragment[kQueries / 16][4];
#pragma unroll
      for (int k = 0; k < kQueries / 16; k++)
#pragma unroll
        for (int r = 0; r < 4; r++) fragment[k][r] = pack<T>(p[8 * k + 2 * r], p[8 * k + 2 * r + 1]);
      wgmma_fence();
      const uint64_t y_columns = operand(y, kQueryPanel), q_columns = operand(q, kQueryPanel);
#pragma unroll
      for (int k = 0; k < kQueries / 16; k++) wgmma<1>(type, dv, fragment[k], y_columns + k * 128);
      wgmma_commit();
      wgmma_wait<1>();
      pin(ds);
      uint32_t ds_fragment[kQueries / 16][4];
      const Address scores_row = rooms.scores(stage) + (own + row16) * 128;
#pragma unroll
      for (int k = 0; k < kQueries / 16; k++) {
#pragma unroll
        for (int c = 2 * k; c < 2 * k + 2; c++) {
          const float2 row = load_shared_floats(lse + 4 * kQueries + 32 * c);
#pragma unroll
          for (int r = 0; r < 4; r += 2) {
            // P is kept only as the product takes it, rounded: registers for both do not suffice.
            const float2 two = unpack<T>(fragment[k][c % 2 * 2 + r / 2]);
            ds[4 * c + r] = two.x * (ds[4 * c + r] - row.x), ds[4 * c + r + 1] = two.y * (ds[4 * c + r + 1] - row.y);
          }
        }
#pragma unroll
        for (int r = 0; r < 4; r++) ds_fragment[k][r] = pack<T>(ds[8 * k + 2 * r], ds[8 * k + 2 * r + 1]);
        store_matrices(scores_row + k / 4 * kKeyPanel + ((2 * (k % 4) + chunk16) ^ row16 % 8) * 16, ds_fragment[k]);
      }
      if constexpr (kAhead) {
        wgmma_wait<0>();  // P's registers are free
        pin(dv);
      }
      fence_async();
      // All of dS is there; and, two tiles of it in turn, nobody reads the one that is written next.
      meet<1, 256>();
      float sums[32];
      const uint64_t scores_sums = operand(rooms.scores(stage) + (kQueries == 128 ? group * kKeyPanel : 0));
      const uint64_t scores_own = operand(rooms.scores(stage) + group * 8192);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kKeys / 16; k++) wgmma<1, 1>(type, sums, scores_sums + k * 128, k_sums + k * 128, k);
      wgmma_commit();
#pragma unroll
      for (int k = 0; k < kQueries / 16; k++) {
        // With 128 columns of dK and dV the fragments of dS would be too many registers beside the next scores.
        if constexpr (D == 128) wgmma<0, 1>(type, dk, scores_own + k * 2, q_columns + k * 128, 1);
        else wgmma<1>(type, dk, ds_fragment[k], q_columns + k * 128);
      }
      wgmma_commit();
      if constexpr (kAhead) {
        // After the last step these scores are made of whatever lies there, and nobody looks.
        if (step + 1 < task.steps) barrier_wait(rooms.full(stage ^ 1), (g + 1) / 2 % 2);
        start_scores(g + 1);
        wgmma_wait<2>();
      } else {
        wgmma_wait<1>();
      }
      pin(sums);
      const int buffer = g % kBuffers;
      const Address sums_at = rooms.sums(buffer) + (threadIdx.x - 128) * 16;
      barrier_wait(rooms.sums_ready(buffer), g / kBuffers % 2);
      if (task.finishes(s)) {
        if (task.before(i0 / kQueries) > 0) {
#pragma unroll
          for (int c = 0; c < 8; c++) {
            const uint4 x = load_shared(sums_at + c * 4096);
            sums[4 * c] += __uint_as_float(x.x), sums[4 * c + 1] += __uint_as_float(x.y);
            sums[4 * c + 2] += __uint_as_float(x.z), sums[4 * c + 3] += __uint_as_float(x.w);
          }
        }
        __syncwarp();
        // The warp's own part of the tile is 16 rows of 128 bytes, four of them 4096 bytes after the four before.
        const Address room = rooms.sums(buffer) + (threadIdx.x - 128) / 32 * 512;
        const int from = i0 + (kQueries == 64 ? warp * 16 : own);
        store_strip<T>([&](int row) { return room + row / 4 * 4096 + row % 4 * 128; }, [&](int i) { return sums[i] * s.scale; },
                       dqkv + (task.b * int64_t(s.tokens) + from) * s.token() + int64_t(task.head(s, step)) * D + (kQueries == 64 ? group * 64 : 0),
                       s.token(), s.tokens - from);
      } else {
#pragma unroll
        for (int c = 0; c < 8; c++) store_shared(sums_at + c * 4096, sums[4 * c], sums[4 * c + 1], sums[4 * c + 2], sums[4 * c + 3]);
      }
      fence_async();
      __syncwarp();
      if (lane == 0) barrier_arrive(rooms.sums_full(buffer));
      wgmma_wait<0>();
      pin(dk);
      pin(dv);
      if constexpr (kAhead) pin(p);
      if (lane == 0) barrier_arrive(rooms.empty(stage));
    }
    if (lane == 0) barrier_arrive(rooms.keys_empty());

    // Through the warp's own rows of the tile of scores that no product reads.
    const Address room = rooms.scores(g % 2) + own * 128;
    T* to = dqkv + (task.b * int64_t(s.tokens) + j0 + own) * s.token();
#pragma unroll
    for (int panel = 0; panel < kPanels; panel++) {
      const auto row_of = [&](int row) { return room + row * 128; };
      const int there = s.tokens - j0 - own;
      store_strip<T>(row_of, [&](int i) { return dk[32 * panel + i] * s.scale; }, to + s.key_at(task.kv) + panel * 64, s.token(), there);
      store_strip<T>(row_of, [&](int i) { return dv[32 * panel + i]; }, to + s.value_at(task.kv) + panel * 64, s.token(), there);
    }
  }
#endif
}

// dQ from f32 tiles of accumulators to its place in dqkv, times the scale. Eight threads (column groups) make 128 bytes of two rows.
template <class T, int D> __global__ void __launch_bounds__(256) hopper_gradient_kernel(const Shape s, const float* dq, T* dqkv) {
  constexpr int kQueries = HopperTile<D>::queries;
  const int tiles = (s.tokens + kQueries - 1) / kQueries;
  const int64_t at = blockIdx.x;  // [batch, heads, tiles] x 2 halves
  const int group = int(at % 2), tile = int(at / 2 % tiles), h = int(at / 2 / tiles % s.heads);
  const int64_t b = at / 2 / tiles / s.heads;
  const int c = threadIdx.x % 8, g = threadIdx.x / 8 % 8, warp = threadIdx.x / 64;
  const float4* from = reinterpret_cast<const float4*>(dq + at / 2 * HopperTile<D>::gradient) + c * 256 + group * 128 + warp * 32 + g * 4;
  float4 x[4];
#pragma unroll
  for (int t = 0; t < 4; t++) x[t] = from[t];
  const int i = tile * kQueries + (kQueries == 128 ? group * 64 : 0) + warp * 16 + g;
  T* to = dqkv + (b * s.tokens + i) * s.token() + int64_t(h) * D + (kQueries == 64 ? group * 64 : 0) + c * 8;
  uint4 low, high;
  low.x = pack<T>(x[0].x * s.scale, x[0].y * s.scale), high.x = pack<T>(x[0].z * s.scale, x[0].w * s.scale);
  low.y = pack<T>(x[1].x * s.scale, x[1].y * s.scale), high.y = pack<T>(x[1].z * s.scale, x[1].w * s.scale);
  low.z = pack<T>(x[2].x * s.scale, x[2].y * s.scale), high.z = pack<T>(x[2].z * s.scale, x[2].w * s.scale);
  low.w = pack<T>(x[3].x * s.scale, x[3].y * s.scale), high.w = pack<T>(x[3].z * s.scale, x[3].w * s.scale);
  if (i < s.tokens) *reinterpret_cast<uint4*>(to) = low;
  if (i + 8 < s.tokens) *reinterpret_cast<uint4*>(to + 8 * s.token()) = high;
}

}  // namespace flash
}  // namespace ds
