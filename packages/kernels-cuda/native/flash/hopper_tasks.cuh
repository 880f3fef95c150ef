// What the roles of Hopper's backward share: where things lie in shared memory, and the order of tasks.
#pragma once
#include "flash/hopper_copies.cuh"
#include "flash/shape.h"

namespace ds {
namespace flash {

// Threads: a warpgroup that moves data, two that compute.
constexpr int kHopperKeys = 128, kHopperThreads = 384;

template <int D> struct HopperTile {
  static constexpr int queries = D == 64 ? 128 : 64;
  static constexpr int buffers = D == 64 ? 1 : 2;         // tiles of dQ on their way to global memory
  static constexpr int keys_bytes = kHopperKeys * D * 2;  // K, and V
  static constexpr int query_bytes = queries * D * 2;     // Q, and dY
  static constexpr int scores_bytes = kHopperKeys * queries * 2;
  static constexpr int gradient = queries * D;            // floats of dQ
  static constexpr int key_panel = kHopperKeys * 128, query_panel = queries * 128;  // bytes of 64 columns
  static constexpr int stages = 2 * keys_bytes, scores = stages + 4 * query_bytes, sums = scores + 2 * scores_bytes;
  static constexpr int rows = sums + buffers * 4 * gradient;  // lse and delta, by stage
  static constexpr int barriers = rows + 2 * 2 * 4 * queries;
  // Shared memory starts at a multiple of 1024 or 128 at least past one: the rest is to align it.
  static constexpr size_t bytes = barriers + 128 + 896;
};

// Addresses in shared memory. Barriers come in pairs (of stages, or buffers) but for those of keys; tasks have four slots: by the time
// that one is written again, everybody has read it.
template <int D> struct HopperRooms {
  using Tile = HopperTile<D>;
  Address start;
  __device__ __forceinline__ Address keys() const { return start; }
  __device__ __forceinline__ Address values() const { return start + Tile::keys_bytes; }
  __device__ __forceinline__ Address queries(int stage) const { return start + Tile::stages + stage * 2 * Tile::query_bytes; }
  __device__ __forceinline__ Address gradients(int stage) const { return queries(stage) + Tile::query_bytes; }
  __device__ __forceinline__ Address scores(int stage) const { return start + Tile::scores + stage * Tile::scores_bytes; }
  __device__ __forceinline__ Address sums(int buffer) const { return start + Tile::sums + buffer * 4 * Tile::gradient; }
  __device__ __forceinline__ Address rows(int stage) const { return start + Tile::rows + stage * 8 * Tile::queries; }
  __device__ __forceinline__ Address keys_full() const { return start + Tile::barriers; }
  __device__ __forceinline__ Address keys_empty() const { return keys_full() + 8; }
  __device__ __forceinline__ Address full(int stage) const { return keys_full() + 16 + 8 * stage; }
  __device__ __forceinline__ Address empty(int stage) const { return keys_full() + 32 + 8 * stage; }
  __device__ __forceinline__ Address sums_full(int buffer) const { return keys_full() + 48 + 8 * buffer; }
  __device__ __forceinline__ Address sums_ready(int buffer) const { return keys_full() + 64 + 8 * buffer; }
  __device__ __forceinline__ Address task_full(int slot) const { return keys_full() + 80 + 8 * slot; }
  __device__ __forceinline__ Address task(int slot) const { return keys_full() + 112 + 4 * slot; }

  __device__ __forceinline__ void start_barriers() const {
    barrier_start(keys_full(), 1), barrier_start(keys_empty(), 8);
    for (int i = 0; i < 2; i++) {
      barrier_start(full(i), 1), barrier_start(empty(i), 8);
      barrier_start(sums_full(i), 8), barrier_start(sums_ready(i), 1);
    }
    for (int i = 0; i < 4; i++) barrier_start(task_full(i), 1);
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    fence_async();
  }
  // The ticket of this block's nth task.
  __device__ __forceinline__ unsigned ticket(int nth) const {
    barrier_wait(task_full(nth % 4), nth / 4 % 2);
    uint32_t ticket;
    asm volatile("ld.shared.b32 %0, [%1];\n" : "=r"(ticket) : "r"(task(nth % 4)) : "memory");
    return ticket;
  }
};

// Tickets are handed out by a counter in global memory. `together` key heads go side by side: all of their tasks of one block of keys,
// then all of the next; so the tasks that end a launch are about equally long, and what they share is in L2.
struct HopperTasks {
  unsigned count;
  int heads, blocks, tiles, together;  // key heads of all sequences; blocks of keys and tiles of queries of a sequence
};

// Counters in global memory: [0] hands out tickets, one per tile of queries says how many blocks of keys have added to dQ.
constexpr int kTickets = 32;

// `diagonal` (only under the causal mask): blocks of keys go from the last to the first, and walk the queries from the diagonal on.
// The block of the diagonal adds to a tile first, the first block last, and when all blocks of a head start at once each finds its turn come.
// Else: blocks of keys go from the first to the last, and walk the queries from the last on: causal blocks start side by side, and the
// longest tasks come first, which suits few long ones.
template <int D, bool causal, bool diagonal> struct HopperTask {
  int n, b, kv, first_tile, tiles, steps;

  __device__ __forceinline__ HopperTask(const Shape& s, const HopperTasks& tasks, unsigned ticket) : tiles(tasks.tiles) {
    const int chunk = int(ticket / unsigned(tasks.together * tasks.blocks)) * tasks.together;
    const int width = tasks.heads - chunk < tasks.together ? tasks.heads - chunk : tasks.together;
    const int rest = int(ticket) - chunk * tasks.blocks, nth = rest / width, head = chunk + rest % width;
    n = diagonal ? tasks.blocks - 1 - nth : nth, b = head / s.kv_heads, kv = head % s.kv_heads;
    first_tile = causal ? n * kHopperKeys / HopperTile<D>::queries : 0, steps = (tiles - first_tile) * s.group;
  }
  __device__ __forceinline__ int head(const Shape& s, int step) const { return kv * s.group + step % s.group; }
  __device__ __forceinline__ int tile(const Shape& s, int step) const {
    return diagonal ? first_tile + step / s.group : tiles - 1 - step / s.group;
  }
  // Which of dQ's tiles a step makes.
  __device__ __forceinline__ int64_t place(const Shape& s, int step) const {
    return (int64_t(b) * s.heads + head(s, step)) * tiles + tile(s, step);
  }
  // How many blocks of keys add to a tile of dQ before this one.
  __device__ __forceinline__ int before(int tile) const { return diagonal ? tile * HopperTile<D>::queries / kHopperKeys - n : n; }
  // Nobody adds after this task: it finishes dQ, in the dtype of the model. (With groups such tasks are long and few: it costs them more
  // than a pass over dQ costs all.)
  __device__ __forceinline__ bool finishes(const Shape& s) const { return diagonal && n == 0 && s.group == 1; }
};

}  // namespace flash
}  // namespace ds
