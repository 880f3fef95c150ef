// The threads of Hopper's backward that move data: one fetches tiles by tensor map, and one for each buffer of sums hands dQ's tiles on.
#pragma once
#include "flash/hopper_tasks.cuh"

namespace ds {
namespace flash {

// Takes tasks, and fetches what their steps read, two steps ahead of the products; then the next task's.
template <int D, bool causal, bool diagonal>
__device__ __forceinline__ void hopper_fetch(const Shape& s, const HopperTasks& tasks, const HopperRooms<D>& rooms, const CUtensorMap& qkv_map,
                                             const CUtensorMap& dy_map, const Statistics& rows, unsigned* counters) {
  using Tile = HopperTile<D>;
  int g = 0;  // steps so far
  for (int nth = 0;; nth++) {
    const unsigned ticket = atomicAdd(counters, 1u);
    store_shared(rooms.task(nth % 4), ticket);
    barrier_arrive(rooms.task_full(nth % 4));
    if (ticket >= tasks.count) return;
    const HopperTask<D, causal, diagonal> task(s, tasks, ticket);
    for (int step = 0; step < task.steps; step++, g++) {
      const int stage = g % 2, h = task.head(s, step), i0 = task.tile(s, step) * Tile::queries;
      const Address arrived = rooms.full(stage);
      barrier_wait(rooms.empty(stage), g / 2 % 2 ^ 1);
      barrier_expect(arrived, 2 * Tile::query_bytes + 8 * Tile::queries);
      for (int panel = 0; panel < D / 64; panel++)
        for (int row = 0; row < Tile::queries; row += 64) {
          const int at = panel * Tile::query_panel + row * 128;
          copy_box(rooms.queries(stage) + at, &qkv_map, panel * 64, h, i0 + row, task.b, arrived);
          copy_box(rooms.gradients(stage) + at, &dy_map, panel * 64, h, i0 + row, task.b, arrived);
        }
      const int64_t row = (int64_t(task.b) * s.heads + h) * s.padded() + i0;
      copy_bytes(rooms.rows(stage), rows.lse + row, 4 * Tile::queries, arrived);
      copy_bytes(rooms.rows(stage) + 4 * Tile::queries, rows.delta + row, 4 * Tile::queries, arrived);
      if (step > 0) continue;
      barrier_wait(rooms.keys_empty(), nth % 2 ^ 1);
      barrier_expect(rooms.keys_full(), 2 * Tile::keys_bytes);
      for (int panel = 0; panel < D / 64; panel++)
        for (int row = 0; row < kHopperKeys; row += 64) {
          const int at = panel * Tile::key_panel + row * 128, j = task.n * kHopperKeys + row;
          copy_box(rooms.keys() + at, &qkv_map, panel * 64, s.heads + task.kv, j, task.b, rooms.keys_full());
          copy_box(rooms.values() + at, &qkv_map, panel * 64, s.heads + s.kv_heads + task.kv, j, task.b, rooms.keys_full());
        }
    }
  }
}

// Adds dQ's tiles of buffer `hand` to global memory, each when its turn has come. For a task that finishes dQ it fetches the sums so far instead.
template <int D, bool causal, bool diagonal>
__device__ __forceinline__ void hopper_hand_over(const Shape& s, const HopperTasks& tasks, const HopperRooms<D>& rooms, float* dq, unsigned* counters,
                                                 int hand) {
  constexpr int kGradient = HopperTile<D>::gradient, kBuffers = HopperTile<D>::buffers;
  int g = 0;  // steps before this task
  for (int nth = 0;; nth++) {
    const unsigned ticket = rooms.ticket(nth);
    if (ticket >= tasks.count) return;
    const HopperTask<D, causal, diagonal> task(s, tasks, ticket);
    // False: nobody adds to this tile before.
    const auto await_turn = [&](int step) {
      const int before = task.before(task.tile(s, step));
      if (before == 0) return false;
      const unsigned* added = counters + kTickets + task.place(s, step);
      const Patience patience;
      while (load_acquire(added) != unsigned(before) && !patience.ended()) continue;
      fence_async();
      return true;
    };
    // The buffer of a step is the products' to fill.
    const auto give = [&](int step) {
      if (step >= task.steps) return;
      const int buffer = (g + step) % kBuffers;
      if (task.finishes(s) && await_turn(step)) {
        barrier_expect(rooms.sums_ready(buffer), 4 * kGradient);
        copy_bytes(rooms.sums(buffer), dq + task.place(s, step) * kGradient, 4 * kGradient, rooms.sums_ready(buffer));
      } else {
        barrier_arrive(rooms.sums_ready(buffer));
      }
    };
    const int first = (hand + g) % kBuffers;
    give(first);
    for (int step = first; step < task.steps; step += kBuffers) {
      const int buffer = (g + step) % kBuffers;
      barrier_wait(rooms.sums_full(buffer), (g + step) / kBuffers % 2);
      if (task.finishes(s)) {
        give(step + kBuffers);
        continue;
      }
      float* to = dq + task.place(s, step) * kGradient;
      if (await_turn(step)) add_floats(to, rooms.sums(buffer), 4 * kGradient);
      else store_bytes(to, rooms.sums(buffer), 4 * kGradient);
      bulk_commit();
      bulk_wait_read();
      give(step + kBuffers);
      bulk_wait();
      fence_async();
      __threadfence();
      store_release(counters + kTickets + task.place(s, step), unsigned(task.before(task.tile(s, step)) + 1));
    }
    g += task.steps;
  }
}

}  // namespace flash
}  // namespace ds
