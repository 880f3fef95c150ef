// Attention forward in f32 arithmetic: blockwise with a running maximum and sum (Dao et al., "FlashAttention", 2022).
#pragma once
#include "flash/plain.cuh"

namespace ds {
namespace flash {

template <int D> constexpr int kPlainTile = D <= 128 ? 64 : 32;

template <class T, int D> __global__ void __launch_bounds__(kPlainThreads) plain_forward_kernel(const Shape s, const T* qkv, T* y, float* lse) {
  constexpr int N = kPlainTile<D>, R = N / 16;
  extern __shared__ float4 plain_memory[];
  float *q = reinterpret_cast<float*>(plain_memory), *kv_room = q + N * kPlainRow<D>, *p = kv_room + N * kPlainRow<D>;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int blocks = (s.tokens + N - 1) / N;
  const int head = blockIdx.x / blocks, b = head / s.heads, h = head % s.heads, kv = h / s.group;
  const int i0 = (blocks - 1 - blockIdx.x % blocks) * N;
  const int64_t token = s.token(), rows = int64_t(head) * s.tokens;
  const T* sequence = qkv + b * int64_t(s.tokens) * token;
  const float scale = s.scale * kLog2E;
  const bool bent = s.bent();
  const Bend<false> bend(s, h);

  float out[R][D / 16] = {}, top[R], sum[R];
#pragma unroll
  for (int r = 0; r < R; r++) top[r] = -INFINITY, sum[r] = 0;
  load_plain<N, D>(q, sequence + i0 * token + int64_t(h) * s.head_dim, token, s.tokens - i0, s.head_dim);
  if (h == 0) s.check_positions(b, i0, N);
  const int end = s.last_key(i0, N);
  for (int j0 = s.first_key(b, i0) / N * N; j0 < end; j0 += N) {
    __syncthreads();
    load_plain<N, D>(kv_room, sequence + j0 * token + s.key_at(kv), token, s.tokens - j0, s.head_dim);
    __syncthreads();
    float score[R][R];
    multiply_plain<N, D>(score, q, kv_room);
    const uint32_t stay = staying<N>(s, rows, i0, j0, true);
#pragma unroll
    for (int r = 0; r < R; r++) {
      const int i = i0 + ty * R + r, seen = s.first_key(b, i);
      float high = top[r];
#pragma unroll
      for (int c = 0; c < R; c++) {
        const int j = j0 + tx + 16 * c;
        score[r][c] *= scale;
        float slope;
        if (bent) score[r][c] = bend(score[r][c], i, j, slope);
        if (!s.sees(i, j, seen)) score[r][c] = -INFINITY;
        high = fmaxf(high, score[r][c]);
      }
#pragma unroll
      for (int offset = 8; offset > 0; offset /= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, offset));
      const float shift = high == -INFINITY ? 0 : high, shrink = exp2f(top[r] - shift);
      top[r] = high;
      sum[r] *= shrink;
#pragma unroll
      for (int c = 0; c < R; c++) {
        score[r][c] = exp2f(score[r][c] - shift);
        sum[r] += score[r][c];
        score[r][c] *= factor_of(s, stay, r * R + c);
      }
#pragma unroll
      for (int c = 0; c < D / 16; c++) out[r][c] *= shrink;
    }
    put_plain<N>(p, score);
    __syncthreads();
    load_plain<N, D>(kv_room, sequence + j0 * token + s.value_at(kv), token, s.tokens - j0, s.head_dim);
    __syncthreads();
    accumulate_plain<N, D>(out, p, kv_room);
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], offset);
    const int i = i0 + ty * R + r;
    if (tx == 0 && i < s.tokens) lse[rows + i] = (top[r] + log2f(sum[r])) * kLn2;
    sum[r] = 1 / sum[r];
  }
  store_plain<N, D>(out, sum, y + (b * int64_t(s.tokens) + i0) * s.wide() + int64_t(h) * s.head_dim, s.wide(), s.tokens - i0, s.head_dim);
}

template <class T> const char* plain_forward(const Shape& s, const T* qkv, T* y, float* lse, cudaStream_t stream) {
  return by_width(s, [&](auto d) {
    constexpr int D = decltype(d)::value, N = kPlainTile<D>;
    const int64_t blocks = int64_t(parts(s.tokens, N)) * s.heads * s.batch;
    return start(plain_forward_kernel<T, D>, blocks, kPlainThreads, (2 * N * kPlainRow<D> + N * (N + 4)) * sizeof(float), stream, s, qkv, y, lse);
  });
}

}  // namespace flash
}  // namespace ds
