// dK and dV on tensor cores: a block takes a tile of keys of one key head and walks the queries of its group's heads, always in
// the same order. With keys down and queries across, P' and dS' come out of their products in the very registers in which
// dV += P' dY and dK += dS' Q take them. For head_dim 256 a block makes one half of the columns of dK and dV.
#pragma once
#include "flash/bend.cuh"
#include "flash/shape.h"
#include "flash/tile.cuh"

namespace ds {
namespace flash {

template <int D> struct KeysTile {
  static constexpr int tiles = D == 64 ? 2 : 1;  // of 16 keys, a warp's
  static constexpr int keys = 16 * tiles * kWarps;
  static constexpr int queries = D <= 128 ? 64 : 32;
  static constexpr int part = D == 64 || D == 256 ? 32 : queries;  // queries whose scores are in registers at a time
  static constexpr int columns = D <= 128 ? D : 128;               // of dK and dV
  static constexpr int stage = 2 * queries * kRowBytes<D> + 2 * queries * 4;
  static constexpr size_t bytes(int stages) { return size_t(2 * keys * kRowBytes<D> + stages * stage); }
};

template <class T, int D, bool causal, bool bent>
__global__ void __launch_bounds__(kThreads, D <= 128 ? 2 : 1)
    backward_keys_kernel(const Shape s, const T* dy, const T* qkv, const Statistics rows, T* dqkv, int stages) {
  using Tile = KeysTile<D>;
  constexpr int kTiles = Tile::tiles, kPart = Tile::part, kQueries = Tile::queries, kHalves = D / Tile::columns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int blocks = (s.tokens + Tile::keys - 1) / Tile::keys;
  const int half = blockIdx.x % kHalves, head = blockIdx.x / kHalves / blocks, b = head / s.kv_heads, kv = head % s.kv_heads;
  const int j0 = int(blockIdx.x / kHalves % blocks) * Tile::keys, w0 = j0 + warp * 16 * kTiles;
  const int64_t token = s.token(), first = b * int64_t(s.tokens);
  const T* sequence = qkv + first * token;

  const Address k_room = shared_memory(), v_room = k_room + Tile::keys * kRowBytes<D>, stage0 = v_room + Tile::keys * kRowBytes<D>;
  constexpr int kY = kQueries * kRowBytes<D>, kLse = 2 * kY, kDelta = kLse + kQueries * 4;  // offsets within a stage
  const Address k_own = k_room + warp * 16 * kTiles * kRowBytes<D>, v_own = v_room + warp * 16 * kTiles * kRowBytes<D>;

  const int begin = s.first_query(j0) / kQueries * kQueries, end = s.last_query(b, j0, Tile::keys);
  const int a_head = (end - begin + kQueries - 1) / kQueries, rounds = a_head * s.group;
  const auto fetch = [&](int round, Address stage) {
    const int h = kv * s.group + round / a_head, i0 = begin + round % a_head * kQueries;
    load_tile<kQueries, D>(stage, sequence + i0 * token + h * D, token, s.tokens - i0);
    load_tile<kQueries, D>(stage + kY, dy + (first + i0) * s.wide() + h * D, s.wide(), s.tokens - i0);
    const int64_t row = (int64_t(b) * s.heads + h) * s.padded() + i0;
    const int i = threadIdx.x;
    if (i < kQueries / 4) copy_async(stage + kLse + 16 * i, rows.lse + row + 4 * i, true);
    else if (i < kQueries / 2) copy_async(stage + kLse + 16 * i, rows.delta + row + 4 * i - kQueries, true);
  };

  load_tile<Tile::keys, D>(k_room, sequence + j0 * token + s.key_at(kv), token, s.tokens - j0);
  load_tile<Tile::keys, D>(v_room, sequence + j0 * token + s.value_at(kv), token, s.tokens - j0);
  fetch(0, stage0);

  const float scale = s.scale * kLog2E;
  float dk[kTiles][Tile::columns / 8][4] = {}, dv[kTiles][Tile::columns / 8][4] = {};
  for (int round = 0; round < rounds; round++) {
    const Address stage = stage0 + (stages == 2 ? round % 2 * Tile::stage : 0);
    copies_done();
    __syncthreads();
    if (stages == 2 && round + 1 < rounds) fetch(round + 1, stage0 + (round + 1) % 2 * Tile::stage);
#pragma unroll 1
    for (int part = 0; part < kQueries; part += kPart) {
      const int i0 = begin + round % a_head * kQueries + part;
      if (i0 >= s.tokens || w0 >= s.tokens || (causal && w0 > i0 + kPart - 1) || w0 + 16 * kTiles - 1 < s.first_key(b, i0))
        continue;
      const Address q_part = stage + part * kRowBytes<D>, y_part = q_part + kY;
      float p[kTiles][kPart / 8][4], ds[kTiles][kPart / 8][4], slope[bent ? kTiles : 1][kPart / 8][4];
      const Bend<true> bend(s, kv * s.group + round / a_head);
      multiply_rows<T, D>(p, k_own + row_lane<D>(lane), q_part + column_lane<D>(lane));
      const bool edge = (causal && w0 + 16 * kTiles - 1 > i0) || w0 < s.first_key(b, i0 + kPart - 1);
#pragma unroll
      for (int n = 0; n < kPart / 8; n++) {
        const float2 lse = load_shared_floats(stage + kLse + (part + n * 8 + 2 * t) * 4);
        const int seen[2] = {edge ? s.first_key(b, i0 + n * 8 + 2 * t) : 0, edge ? s.first_key(b, i0 + n * 8 + 2 * t + 1) : 0};
#pragma unroll
        for (int m = 0; m < kTiles; m++)
#pragma unroll
          for (int r = 0; r < 4; r++) {
            const int i = i0 + n * 8 + 2 * t + r % 2, j = w0 + m * 16 + g + r / 2 * 8;
            if constexpr (bent) p[m][n][r] = exp2_fast(bend(p[m][n][r] * scale, i, j, slope[m][n][r]) - (r % 2 ? lse.y : lse.x));
            else p[m][n][r] = exp2_fast(fmaf(p[m][n][r], scale, -(r % 2 ? lse.y : lse.x)));
            if (edge && ((causal && j > i) || j < seen[r % 2])) p[m][n][r] = 0;
          }
      }
      multiply_rows<T, D>(ds, v_own + row_lane<D>(lane), y_part + column_lane<D>(lane));
      uint32_t p_fragment[kTiles][kPart / 16][4], ds_fragment[kTiles][kPart / 16][4];
#pragma unroll
      for (int n = 0; n < kPart / 8; n++) {
        const float2 delta = load_shared_floats(stage + kDelta + (part + n * 8 + 2 * t) * 4);
#pragma unroll
        for (int m = 0; m < kTiles; m++)
#pragma unroll
          for (int r = 0; r < 4; r++) {
            ds[m][n][r] = p[m][n][r] * (ds[m][n][r] - (r % 2 ? delta.y : delta.x));
            if constexpr (bent) ds[m][n][r] *= slope[m][n][r];
          }
      }
#pragma unroll
      for (int m = 0; m < kTiles; m++)
#pragma unroll
        for (int n = 0; n < kPart / 16; n++) {
          as_fragment<T>(p_fragment[m][n], p[m][2 * n], p[m][2 * n + 1]);
          as_fragment<T>(ds_fragment[m][n], ds[m][2 * n], ds[m][2 * n + 1]);
        }
      multiply_fragments<T, D>(dv, p_fragment, y_part + row_lane<D>(lane) + half * 2 * Tile::columns);
      multiply_fragments<T, D>(dk, ds_fragment, q_part + row_lane<D>(lane) + half * 2 * Tile::columns);
    }
    if (stages == 1 && round + 1 < rounds) {
      __syncthreads();
      fetch(round + 1, stage0);
    }
  }

  float one[kTiles][2], factor[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; m++) one[m][0] = one[m][1] = 1, factor[m][0] = factor[m][1] = s.scale;
  T* to = dqkv + (first + w0) * token + half * Tile::columns;
  store_rows<T, D>(dk, factor, k_own, to + s.key_at(kv), token, s.tokens - w0);
  store_rows<T, D>(dv, one, v_own, to + s.value_at(kv), token, s.tokens - w0);
}

}  // namespace flash
}  // namespace ds
