// dQ, dK and dV in one kernel of Hopper's own instructions. A block takes 128 keys of one key head and walks the queries of its
// group's heads: two warpgroups of 64 keys each compute, one warp fetches tiles by tensor map two ahead, one adds dQ's tiles to
// global memory. Scores are made transposed, keys down: P' and dS' then come out of their products in the very registers in
// which dV += P' dY and dK += dS' Q take them; dQ = dS K takes dS' through shared memory.
//
// Every sum has one order. dQ of a tile of queries is the sum of what the blocks of keys add, first to last: a counter per tile
// says whose turn it is. A block waits only for blocks with earlier tickets, which run already. All blocks of a head walk the
// queries from the last to the first, so that causal blocks, which see only the later queries, start side by side.
#pragma once
#include "flash/hopper_copies.cuh"
#include "flash/hopper_wgmma.cuh"
#include "flash/shape.h"

namespace ds {
namespace flash {

template <class T> __device__ __forceinline__ float2 unpack(uint32_t two);
template <> __device__ __forceinline__ float2 unpack<bf16>(uint32_t two) {
  return make_float2(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u));
}
template <> __device__ __forceinline__ float2 unpack<f16>(uint32_t two) {
  return __half22float2(*reinterpret_cast<const __half2*>(&two));
}

constexpr int kHopperKeys = 128, kHopperThreads = 384;

template <int D> struct HopperTile {
  static constexpr int queries = D == 64 ? 128 : 64;
  static constexpr int keys_bytes = kHopperKeys * D * 2;  // K, and V
  static constexpr int query_bytes = queries * D * 2;     // Q, and dY
  static constexpr int scores_bytes = kHopperKeys * queries * 2;
  static constexpr int gradient = queries * D;            // floats of dQ
  static constexpr int stages = 2 * keys_bytes, scores = stages + 4 * query_bytes, sums = scores + 2 * scores_bytes;
  static constexpr int rows = sums + 4 * gradient;        // lse and delta, by stage
  static constexpr int barriers = rows + 2 * 2 * 4 * queries;
  static constexpr size_t bytes = barriers + 128 + 1024;  // 1024: to align the start
};

// Counters in global memory: [0] hands out tickets, one per tile of queries says how many blocks of keys have added to dQ.
constexpr int kTickets = 32;

// dQ's tiles lie as the accumulators do: 16 bytes of column group c of thread t (of 256) at 256 c + t.
template <class T, int D, bool causal>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_backward_kernel(const Shape s, const __grid_constant__ CUtensorMap qkv_map, const __grid_constant__ CUtensorMap dy_map,
                           const Statistics rows, float* dq, unsigned* counters, T* dqkv) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tile = HopperTile<D>;
  constexpr int kKeys = kHopperKeys, kQueries = Tile::queries, kPanels = D / 64;
  constexpr int kKeyPanel = kKeys * 128, kQueryPanel = kQueries * 128;  // bytes of 64 columns
  extern __shared__ __align__(1024) unsigned char hopper_memory[];
  const Address start = (Address(__cvta_generic_to_shared(hopper_memory)) + 1023) & ~1023u;
  const Address k_room = start, v_room = start + Tile::keys_bytes, barriers = start + Tile::barriers;
  const Address keys_full = barriers, sums_full = barriers + 8, sums_empty = barriers + 16, full = barriers + 24, empty = barriers + 40;
  const Address ticket_room = barriers + 64;

  if (threadIdx.x == 0) {
    barrier_start(keys_full, 1), barrier_start(sums_full, 8), barrier_start(sums_empty, 1);
    for (int i = 0; i < 2; i++) barrier_start(full + 8 * i, 1), barrier_start(empty + 8 * i, 8);
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    fence_async();
    store_shared(ticket_room, atomicAdd(counters, 1u));
  }
  __syncthreads();
  uint32_t ticket;
  asm volatile("ld.shared.b32 %0, [%1];\n" : "=r"(ticket) : "r"(ticket_room) : "memory");

  const int blocks = (s.tokens + kKeys - 1) / kKeys, tiles = (s.tokens + kQueries - 1) / kQueries;
  const int n = int(ticket % unsigned(blocks)), head = int(ticket / unsigned(blocks)), b = head / s.kv_heads, kv = head % s.kv_heads;
  const int j0 = n * kKeys, first_tile = causal ? j0 / kQueries : 0, steps = (tiles - first_tile) * s.group;
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;

  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\n");
    if (warp == 0 && lane == 0) {
      barrier_expect(keys_full, 2 * Tile::keys_bytes);
      for (int panel = 0; panel < kPanels; panel++)
        for (int row = 0; row < kKeys; row += 64) {
          const int at = panel * kKeyPanel + row * 128;
          copy_box(k_room + at, &qkv_map, panel * 64, s.heads + kv, j0 + row, b, keys_full);
          copy_box(v_room + at, &qkv_map, panel * 64, s.heads + s.kv_heads + kv, j0 + row, b, keys_full);
        }
      for (int step = 0; step < steps; step++) {
        const int stage = step % 2, h = kv * s.group + step % s.group, i0 = (tiles - 1 - step / s.group) * kQueries;
        const Address q = start + Tile::stages + stage * 2 * Tile::query_bytes, y = q + Tile::query_bytes;
        const Address lse = start + Tile::rows + stage * 8 * kQueries, arrived = full + 8 * stage;
        barrier_wait(empty + 8 * stage, step / 2 % 2 ^ 1);
        barrier_expect(arrived, 2 * Tile::query_bytes + 8 * kQueries);
        for (int panel = 0; panel < kPanels; panel++)
          for (int row = 0; row < kQueries; row += 64) {
            const int at = panel * kQueryPanel + row * 128;
            copy_box(q + at, &qkv_map, panel * 64, h, i0 + row, b, arrived);
            copy_box(y + at, &dy_map, panel * 64, h, i0 + row, b, arrived);
          }
        const int64_t row = (int64_t(b) * s.heads + h) * s.padded() + i0;
        copy_bytes(lse, rows.lse + row, 4 * kQueries, arrived);
        copy_bytes(lse + 4 * kQueries, rows.delta + row, 4 * kQueries, arrived);
      }
    } else if (warp == 1 && lane == 0) {
      for (int step = 0; step < steps; step++) {
        const int h = kv * s.group + step % s.group, tile = tiles - 1 - step / s.group;
        const int64_t at = (int64_t(b) * s.heads + h) * tiles + tile;
        unsigned* turn = counters + kTickets + at;
        barrier_wait(sums_full, step % 2);
        if (n == 0) {
          store_bytes(dq + at * Tile::gradient, start + Tile::sums, 4 * Tile::gradient);
        } else {
          const Patience patience;
          while (load_acquire(turn) != unsigned(n) && !patience.ended()) continue;
          fence_async();
          add_floats(dq + at * Tile::gradient, start + Tile::sums, 4 * Tile::gradient);
        }
        bulk_commit();
        bulk_wait_read();
        barrier_arrive(sums_empty);
        bulk_wait();
        fence_async();
        __threadfence();
        store_release(turn, unsigned(n + 1));
      }
    }
    return;
  }

  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\n");
  const int group = threadIdx.x / 128 - 1, g = lane / 4, t = lane % 4, own = group * 64 + warp * 16;
  constexpr Tag<T> type{};
  const float scale = s.scale * kLog2E;
  float dk[D / 2] = {}, dv[D / 2] = {};
  const uint64_t k_rows = operand(k_room + group * 8192), v_rows = operand(v_room + group * 8192);
  // dQ: a warpgroup makes 64 queries, or half of the columns.
  const uint64_t k_sums = operand(k_room + (kQueries == 64 ? group * kKeyPanel : 0));
  const int row16 = lane % 16, chunk16 = lane / 16;
  const Address scores_row = start + Tile::scores + (own + row16) * 128;
  const Address sums_at = start + Tile::sums + (threadIdx.x - 128) * 16;

  barrier_wait(keys_full, 0);
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    const int stage = step % 2, i0 = (tiles - 1 - step / s.group) * kQueries;
    const Address q = start + Tile::stages + stage * 2 * Tile::query_bytes, y = q + Tile::query_bytes;
    const Address lse = start + Tile::rows + stage * 8 * kQueries + 8 * t;
    float p[kQueries / 2], ds[kQueries / 2];
    barrier_wait(full + 8 * stage, step / 2 % 2);
    wgmma_fence();
    const uint64_t q_rows = operand(q), y_rows = operand(y);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
      wgmma<0, 0>(type, p, k_rows + (k / 4 * kKeyPanel + k % 4 * 32) / 16, q_rows + (k / 4 * kQueryPanel + k % 4 * 32) / 16, k);
    wgmma_commit();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
      wgmma<0, 0>(type, ds, v_rows + (k / 4 * kKeyPanel + k % 4 * 32) / 16, y_rows + (k / 4 * kQueryPanel + k % 4 * 32) / 16, k);
    wgmma_commit();
    wgmma_wait<1>();
    pin(p);
    const bool edge = causal ? j0 + group * 64 + 63 > i0 : j0 + kKeys > s.tokens;
    const int j = j0 + own + g - (causal ? i0 + 2 * t : 0);
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
    const Address scores = scores_row + stage * Tile::scores_bytes;
#pragma unroll
    for (int k = 0; k < kQueries / 16; k++) {
#pragma unroll
      for (int c = 2 * k; c < 2 * k + 2; c++) {
        const float2 row = load_shared_floats(lse + 4 * kQueries + 32 * c);
#pragma unroll
        for (int r = 0; r < 4; r += 2) {
          // With 128 queries P is kept only as the product takes it, rounded: registers for both do not suffice.
          float2 two = make_float2(p[4 * c + r], p[4 * c + r + 1]);
          if constexpr (kQueries == 128) two = unpack<T>(fragment[k][c % 2 * 2 + r / 2]);
          ds[4 * c + r] = two.x * (ds[4 * c + r] - row.x), ds[4 * c + r + 1] = two.y * (ds[4 * c + r + 1] - row.y);
        }
      }
#pragma unroll
      for (int r = 0; r < 4; r++) ds_fragment[k][r] = pack<T>(ds[8 * k + 2 * r], ds[8 * k + 2 * r + 1]);
      store_matrices(scores + k / 4 * kKeyPanel + ((2 * (k % 4) + chunk16) ^ row16 % 8) * 16, ds_fragment[k]);
    }
    fence_async();
    // All of dS is there; and, two tiles of it in turn, nobody reads the one that is written next.
    meet<1, 256>();
    float sums[32];
    const uint64_t scores_sums = operand(start + Tile::scores + stage * Tile::scores_bytes + (kQueries == 128 ? group * kKeyPanel : 0));
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) wgmma<1, 1>(type, sums, scores_sums + k * 128, k_sums + k * 128, k);
    wgmma_commit();
#pragma unroll
    for (int k = 0; k < kQueries / 16; k++) wgmma<1>(type, dk, ds_fragment[k], q_columns + k * 128);
    wgmma_commit();
    wgmma_wait<1>();
    pin(sums);
    barrier_wait(sums_empty, step % 2 ^ 1);
#pragma unroll
    for (int c = 0; c < 8; c++) store_shared(sums_at + c * 4096, sums[4 * c], sums[4 * c + 1], sums[4 * c + 2], sums[4 * c + 3]);
    fence_async();
    __syncwarp();
    if (lane == 0) barrier_arrive(sums_full);
    wgmma_wait<0>();
    pin(dk);
    pin(dv);
    if (lane == 0) barrier_arrive(empty + 8 * stage);
  }

  // Through the keys' own rows of shared memory to global memory, in accesses of 16 bytes.
  meet<1, 256>();
  const int64_t token = s.token();
  T* to = dqkv + (b * int64_t(s.tokens) + j0 + own) * token;
  const Address k_own = k_room + own * 128, v_own = v_room + own * 128;
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    uint32_t left[4], right[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
      left[r] = pack<T>(dk[8 * k + 2 * r] * s.scale, dk[8 * k + 2 * r + 1] * s.scale);
      right[r] = pack<T>(dv[8 * k + 2 * r], dv[8 * k + 2 * r + 1]);
    }
    const int at = k / 4 * kKeyPanel + row16 * 128 + ((2 * (k % 4) + chunk16) ^ row16 % 8) * 16;
    store_matrices(k_own + at, left);
    store_matrices(v_own + at, right);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4 * kPanels; i++) {
    const int row = i / kPanels * 4 + lane / 8, panel = i % kPanels, chunk = lane % 8;
    if (j0 + own + row >= s.tokens) continue;
    const int at = panel * kKeyPanel + row * 128 + (chunk ^ row % 8) * 16;
    T* place = to + row * token + panel * 64 + chunk * 8;
    *reinterpret_cast<uint4*>(place + s.key_at(kv)) = load_shared(k_own + at);
    *reinterpret_cast<uint4*>(place + s.value_at(kv)) = load_shared(v_own + at);
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
