// Attention forward on tensor cores (Dao, "FlashAttention-2", 2023): a block takes a tile of queries of one head and walks the
// keys with a running maximum and sum. Scores, probabilities and output stay in registers; a warp has rows of its own. Values
// are on their way while the scores are made, the next keys while the probabilities meet the values.
#pragma once
#include "flash/bend.cuh"
#include "flash/shape.h"
#include "flash/tile.cuh"

namespace ds {
namespace flash {

template <int D> struct ForwardTile {
  static constexpr int tiles = D <= 128 ? 2 : 1;  // of 16 queries, a warp's
  static constexpr int queries = 16 * tiles * kWarps, keys = 64;
  static constexpr size_t bytes = size_t(queries + 2 * keys) * kRowBytes<D>;
};

// `bent`: scores are capped or fall with distance; they are then in units of log2 e from the start.
template <class T, int D, bool causal, bool bent>
__global__ void __launch_bounds__(kThreads, D <= 128 ? 2 : 1) forward_kernel(const Shape s, const T* qkv, T* y, float* lse) {
  using Tile = ForwardTile<D>;
  constexpr int kTiles = Tile::tiles, kKeys = Tile::keys, kColumns = kKeys / 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  // The last queries see most keys: their blocks start first. Blocks of a head are neighbours, which share keys in L2.
  const int blocks = (s.tokens + Tile::queries - 1) / Tile::queries;
  const int head = blockIdx.x / blocks, b = head / s.heads, h = head % s.heads, kv = h / s.group;
  const int i0 = (blocks - 1 - blockIdx.x % blocks) * Tile::queries, w0 = i0 + warp * 16 * kTiles;
  const int64_t token = s.token();
  const T* sequence = qkv + b * int64_t(s.tokens) * token;
  const T *keys = sequence + s.key_at(kv), *values = sequence + s.value_at(kv);

  const Address q_room = shared_memory(), k_room = q_room + Tile::queries * kRowBytes<D>, v_room = k_room + kKeys * kRowBytes<D>;
  const Address q_lane = q_room + warp * 16 * kTiles * kRowBytes<D> + row_lane<D>(lane);
  const Address k_lane = k_room + column_lane<D>(lane), v_lane = v_room + row_lane<D>(lane);

  const float scale = bent ? 1.0f : s.scale * kLog2E;
  const Bend<true> bend(s, h);
  float out[kTiles][D / 8][4] = {}, top[kTiles][2], sum[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; m++) top[m][0] = top[m][1] = -INFINITY, sum[m][0] = sum[m][1] = 0;

  if (h == 0) s.check_positions(b, i0, Tile::queries);
  const int begin = s.first_key(b, i0) / kKeys * kKeys, end = s.last_key(i0, Tile::queries);
  load_tile<Tile::queries, D>(q_room, sequence + i0 * token + h * D, token, s.tokens - i0);
  load_tile<kKeys, D>(k_room, keys + begin * token, token, s.tokens - begin);
  for (int j0 = begin; j0 < end; j0 += kKeys) {
    // All warps of the block wait twice a round; one whose queries see none of these keys has nothing else to do.
    const bool working = w0 < s.tokens && (!causal || j0 < w0 + 16 * kTiles) && j0 + kKeys > s.first_key(b, w0);
    copies_done();
    __syncthreads();
    load_tile<kKeys, D>(v_room, values + j0 * token, token, s.tokens - j0);
    float score[kTiles][kColumns][4];
    if (working) {
      multiply_rows<T, D>(score, q_lane, k_lane);
      if constexpr (bent) {
#pragma unroll
        for (int m = 0; m < kTiles; m++)
#pragma unroll
          for (int n = 0; n < kColumns; n++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
              float slope;
              score[m][n][r] = bend(score[m][n][r] * (s.scale * kLog2E), w0 + m * 16 + g + r / 2 * 8, j0 + n * 8 + 2 * t + r % 2, slope);
            }
      }
      if (j0 + kKeys > s.tokens || (causal && j0 + kKeys - 1 > w0) || j0 < s.first_key(b, w0 + 16 * kTiles - 1)) {
#pragma unroll
        for (int m = 0; m < kTiles; m++)
#pragma unroll
          for (int r = 0; r < 2; r++) {
            const int i = w0 + m * 16 + g + r * 8, first = first_seen(s, b, i, j0 + 2 * t), last = last_seen<causal>(s, i, j0 + 2 * t);
#pragma unroll
            for (int n = 0; n < kColumns; n++)
#pragma unroll
              for (int e = 0; e < 2; e++)
                if (n * 8 + e < first || n * 8 + e >= last) score[m][n][2 * r + e] = -INFINITY;
          }
      }
    }
    copies_done();
    __syncthreads();
    if (j0 + kKeys < end) load_tile<kKeys, D>(k_room, keys + (j0 + kKeys) * token, token, s.tokens - j0 - kKeys);
    if (!working) continue;

    uint32_t weight[kTiles][kKeys / 16][4];
#pragma unroll
    for (int m = 0; m < kTiles; m++) {
      float shrink[2];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float high = top[m][r];
#pragma unroll
        for (int n = 0; n < kColumns; n++) high = fmaxf(high, fmaxf(score[m][n][2 * r], score[m][n][2 * r + 1]));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        const float shift = high == -INFINITY ? 0 : high * scale;  // no key seen so far
        shrink[r] = exp2_fast(top[m][r] * scale - shift);
        top[m][r] = high;
        float total = 0;
#pragma unroll
        for (int n = 0; n < kColumns; n++)
#pragma unroll
          for (int e = 2 * r; e < 2 * r + 2; e++) {
            score[m][n][e] = exp2_fast(fmaf(score[m][n][e], scale, -shift));
            total += score[m][n][e];
          }
        sum[m][r] = fmaf(sum[m][r], shrink[r], total);
      }
      if (__any_sync(0xffffffffu, shrink[0] != 1 || shrink[1] != 1)) {
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
          for (int r = 0; r < 4; r++) out[m][n][r] *= shrink[r / 2];
      }
#pragma unroll
      for (int n = 0; n < kKeys / 16; n++) as_fragment<T>(weight[m][n], score[m][2 * n], score[m][2 * n + 1]);
    }
    multiply_fragments<T, D>(out, weight, v_lane);
  }

  float factor[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float total = sum[m][r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      factor[m][r] = 1 / total;
      const int i = w0 + m * 16 + g + r * 8;
      if (t == 0 && i < s.tokens) lse[head * int64_t(s.tokens) + i] = fmaf(top[m][r], bent ? kLn2 : s.scale, logf(total));
    }
  store_rows<T, D>(out, factor, q_room + warp * 16 * kTiles * kRowBytes<D>, y + (b * int64_t(s.tokens) + w0) * s.wide() + h * D, s.wide(),
                   s.tokens - w0);
}

}  // namespace flash
}  // namespace ds
