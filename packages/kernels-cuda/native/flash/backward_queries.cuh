// dQ on tensor cores: a block takes a tile of queries of one head and walks the keys, with dQ in registers. It makes the scores
// again, as the block that sums over queries does (backward_keys.cuh): no two blocks add to the same place, so the result
// repeats bit for bit.
#pragma once
#include "flash/bend.cuh"
#include "flash/shape.h"
#include "flash/tile.cuh"

namespace ds {
namespace flash {

template <int D> struct QueriesTile {
  static constexpr int tiles = D <= 128 ? 2 : 1;  // of 16 queries, a warp's
  static constexpr int queries = 16 * tiles * kWarps;
  static constexpr int keys = D == 64 ? 64 : 32;
  static constexpr int stage = 2 * keys * kRowBytes<D>;
  static constexpr size_t bytes(int stages) { return size_t(2 * queries * kRowBytes<D> + stages * stage); }
};

template <class T, int D, bool causal, bool bent>
__global__ void __launch_bounds__(kThreads, D <= 128 ? 2 : 1)
    backward_queries_kernel(const Shape s, const T* dy, const T* qkv, const Statistics rows, T* dqkv, int stages) {
  using Tile = QueriesTile<D>;
  constexpr int kTiles = Tile::tiles, kKeys = Tile::keys;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int blocks = (s.tokens + Tile::queries - 1) / Tile::queries;
  const int head = blockIdx.x / blocks, b = head / s.heads, h = head % s.heads, kv = h / s.group;
  const int i0 = (blocks - 1 - blockIdx.x % blocks) * Tile::queries, w0 = i0 + warp * 16 * kTiles;
  const int64_t token = s.token(), first = b * int64_t(s.tokens);
  const T* sequence = qkv + first * token;
  const T *keys = sequence + s.key_at(kv), *values = sequence + s.value_at(kv);

  const Address q_room = shared_memory(), y_room = q_room + Tile::queries * kRowBytes<D>, stage0 = y_room + Tile::queries * kRowBytes<D>;
  constexpr int kV = kKeys * kRowBytes<D>;
  const Address q_own = q_room + warp * 16 * kTiles * kRowBytes<D>, y_own = y_room + warp * 16 * kTiles * kRowBytes<D>;

  const int begin = s.first_key(b, i0) / kKeys * kKeys, end = s.last_key(i0, Tile::queries);
  const auto fetch = [&](int j0, Address stage) {
    load_tile<kKeys, D>(stage, keys + j0 * token, token, s.tokens - j0);
    load_tile<kKeys, D>(stage + kV, values + j0 * token, token, s.tokens - j0);
  };
  load_tile<Tile::queries, D>(q_room, sequence + i0 * token + h * D, token, s.tokens - i0);
  load_tile<Tile::queries, D>(y_room, dy + (first + i0) * s.wide() + h * D, s.wide(), s.tokens - i0);
  fetch(begin, stage0);

  float lse[kTiles][2], delta[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int64_t row = int64_t(head) * s.padded() + w0 + m * 16 + g + r * 8;
      lse[m][r] = rows.lse[row], delta[m][r] = rows.delta[row];
    }

  const float scale = s.scale * kLog2E;
  const Bend<true> bend(s, h);
  float dq[kTiles][D / 8][4] = {};
  for (int j0 = begin, round = 0; j0 < end; j0 += kKeys, round++) {
    const Address stage = stage0 + (stages == 2 ? round % 2 * Tile::stage : 0);
    copies_done();
    __syncthreads();
    if (stages == 2 && j0 + kKeys < end) fetch(j0 + kKeys, stage0 + (round + 1) % 2 * Tile::stage);
    const bool seen = w0 < s.tokens && (!causal || j0 < w0 + 16 * kTiles) && j0 + kKeys > s.first_key(b, w0);
    if (seen) {
      float p[kTiles][kKeys / 8][4], ds[kTiles][kKeys / 8][4], slope[bent ? kTiles : 1][kKeys / 8][4];
      multiply_rows<T, D>(p, q_own + row_lane<D>(lane), stage + column_lane<D>(lane));
      const bool edge = j0 + kKeys > s.tokens || (causal && j0 + kKeys - 1 > w0) || j0 < s.first_key(b, w0 + 16 * kTiles - 1);
#pragma unroll
      for (int m = 0; m < kTiles; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const int i = w0 + m * 16 + g + r * 8;
          const int first = edge ? first_seen(s, b, i, j0 + 2 * t) : 0, last = edge ? last_seen<causal>(s, i, j0 + 2 * t) : kKeys;
#pragma unroll
          for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
              float& x = p[m][n][2 * r + e];
              if constexpr (bent) x = exp2_fast(bend(x * scale, i, j0 + n * 8 + 2 * t + e, slope[m][n][2 * r + e]) - lse[m][r]);
              else x = exp2_fast(fmaf(x, scale, -lse[m][r]));
              if (n * 8 + e < first || n * 8 + e >= last) x = 0;
            }
        }
      multiply_rows<T, D>(ds, y_own + row_lane<D>(lane), stage + kV + column_lane<D>(lane));
      uint32_t fragment[kTiles][kKeys / 16][4];
#pragma unroll
      for (int m = 0; m < kTiles; m++)
#pragma unroll
        for (int n = 0; n < kKeys / 16; n++) {
#pragma unroll
          for (int r = 0; r < 4; r++) {
            ds[m][2 * n][r] = p[m][2 * n][r] * (ds[m][2 * n][r] - delta[m][r / 2]);
            ds[m][2 * n + 1][r] = p[m][2 * n + 1][r] * (ds[m][2 * n + 1][r] - delta[m][r / 2]);
            if constexpr (bent) ds[m][2 * n][r] *= slope[m][2 * n][r], ds[m][2 * n + 1][r] *= slope[m][2 * n + 1][r];
          }
          as_fragment<T>(fragment[m][n], ds[m][2 * n], ds[m][2 * n + 1]);
        }
      multiply_fragments<T, D>(dq, fragment, stage + row_lane<D>(lane));
    }
    if (stages == 1 && j0 + kKeys < end) {
      __syncthreads();
      fetch(j0 + kKeys, stage0);
    }
  }

  float factor[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; m++) factor[m][0] = factor[m][1] = s.scale;
  store_rows<T, D>(dq, factor, q_own, dqkv + (first + w0) * token + h * D, token, s.tokens - w0);
}

}  // namespace flash
}  // namespace ds
