// Attention backward in f32 arithmetic: one kernel sums over queries for dK and dV, one over keys for dQ; see backward_keys.cuh.
#pragma once
#include "flash/plain.cuh"

namespace ds {
namespace flash {

template <int D> constexpr int kPlainBackwardTile = D <= 64 ? 64 : D == 128 ? 32 : 16;

// Keys down, queries across; the group's heads in order.
template <class T, int D>
__global__ void __launch_bounds__(kPlainThreads) plain_keys_kernel(const Shape s, const T* dy, const T* qkv, const Statistics rows, T* dqkv) {
  constexpr int N = kPlainBackwardTile<D>, R = N / 16;
  extern __shared__ float4 plain_memory[];
  float *k = reinterpret_cast<float*>(plain_memory), *v = k + N * kPlainRow<D>, *q = v + N * kPlainRow<D>, *g = q + N * kPlainRow<D>,
        *p = g + N * kPlainRow<D>;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int blocks = (s.tokens + N - 1) / N;
  const int head = blockIdx.x / blocks, b = head / s.kv_heads, kv = head % s.kv_heads, j0 = blockIdx.x % blocks * N;
  const int64_t token = s.token(), first = b * int64_t(s.tokens);
  const T* sequence = qkv + first * token;
  const float scale = s.scale * kLog2E;
  const bool bent = s.bent();

  load_plain<N, D>(k, sequence + j0 * token + s.key_at(kv), token, s.tokens - j0, s.head_dim);
  load_plain<N, D>(v, sequence + j0 * token + s.value_at(kv), token, s.tokens - j0, s.head_dim);
  float dk[R][D / 16] = {}, dv[R][D / 16] = {};
  const int end = s.last_query(b, j0, N);
  for (int h = kv * s.group; h < (kv + 1) * s.group; h++) {
    const Bend<false> bend(s, h);
    const int64_t row = int64_t(b) * s.heads + h;
    for (int i0 = s.first_query(j0) / N * N; i0 < end; i0 += N) {
      __syncthreads();
      load_plain<N, D>(q, sequence + i0 * token + int64_t(h) * s.head_dim, token, s.tokens - i0, s.head_dim);
      load_plain<N, D>(g, dy + (first + i0) * s.wide() + int64_t(h) * s.head_dim, s.wide(), s.tokens - i0, s.head_dim);
      __syncthreads();
      float w[R][R], ds[R][R];
      multiply_plain<N, D>(w, k, q);
      multiply_plain<N, D>(ds, v, g);
      const uint32_t stay = staying<N>(s, row * s.tokens, i0, j0, false);
#pragma unroll
      for (int c = 0; c < R; c++) {
        const int i = i0 + tx + 16 * c;
        const int seen = s.first_key(b, i);
        const float lse = rows.lse[row * s.padded() + i], delta = rows.delta[row * s.padded() + i];
#pragma unroll
        for (int r = 0; r < R; r++) {
          const int j = j0 + ty * R + r;
          float slope = 1, score = w[r][c] * scale;
          if (bent) score = bend(score, i, j, slope);
          w[r][c] = s.sees(i, j, seen) ? exp2f(score - lse) : 0;
          const float factor = factor_of(s, stay, r * R + c);
          ds[r][c] = w[r][c] * (ds[r][c] * factor - delta) * slope;
          w[r][c] *= factor;
        }
      }
      put_plain<N>(p, w);
      __syncthreads();
      accumulate_plain<N, D>(dv, p, g);
      __syncthreads();
      put_plain<N>(p, ds);
      __syncthreads();
      accumulate_plain<N, D>(dk, p, q);
    }
  }
  float one[R], factor[R];
#pragma unroll
  for (int r = 0; r < R; r++) one[r] = 1, factor[r] = s.scale;
  T* to = dqkv + (first + j0) * token;
  store_plain<N, D>(dk, factor, to + s.key_at(kv), token, s.tokens - j0, s.head_dim);
  store_plain<N, D>(dv, one, to + s.value_at(kv), token, s.tokens - j0, s.head_dim);
}

// Queries down, keys across.
template <class T, int D>
__global__ void __launch_bounds__(kPlainThreads) plain_queries_kernel(const Shape s, const T* dy, const T* qkv, const Statistics rows, T* dqkv) {
  constexpr int N = kPlainBackwardTile<D>, R = N / 16;
  extern __shared__ float4 plain_memory[];
  float *q = reinterpret_cast<float*>(plain_memory), *g = q + N * kPlainRow<D>, *k = g + N * kPlainRow<D>, *v = k + N * kPlainRow<D>,
        *p = v + N * kPlainRow<D>;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int blocks = (s.tokens + N - 1) / N;
  const int head = blockIdx.x / blocks, b = head / s.heads, h = head % s.heads, kv = h / s.group;
  const int i0 = (blocks - 1 - blockIdx.x % blocks) * N;
  const int64_t token = s.token(), first = b * int64_t(s.tokens);
  const T* sequence = qkv + first * token;
  const float scale = s.scale * kLog2E;
  const bool bent = s.bent();
  const Bend<false> bend(s, h);

  load_plain<N, D>(q, sequence + i0 * token + int64_t(h) * s.head_dim, token, s.tokens - i0, s.head_dim);
  load_plain<N, D>(g, dy + (first + i0) * s.wide() + int64_t(h) * s.head_dim, s.wide(), s.tokens - i0, s.head_dim);
  float dq[R][D / 16] = {}, lse[R], delta[R], factor[R];
#pragma unroll
  for (int r = 0; r < R; r++) {
    const int64_t row = int64_t(head) * s.padded() + i0 + ty * R + r;
    lse[r] = rows.lse[row], delta[r] = rows.delta[row], factor[r] = s.scale;
  }
  const int end = s.last_key(i0, N);
  for (int j0 = s.first_key(b, i0) / N * N; j0 < end; j0 += N) {
    __syncthreads();
    load_plain<N, D>(k, sequence + j0 * token + s.key_at(kv), token, s.tokens - j0, s.head_dim);
    load_plain<N, D>(v, sequence + j0 * token + s.value_at(kv), token, s.tokens - j0, s.head_dim);
    __syncthreads();
    float w[R][R], ds[R][R];
    multiply_plain<N, D>(w, q, k);
    multiply_plain<N, D>(ds, g, v);
    const uint32_t stay = staying<N>(s, int64_t(head) * s.tokens, i0, j0, true);
#pragma unroll
    for (int r = 0; r < R; r++) {
      const int i = i0 + ty * R + r, seen = s.first_key(b, i);
#pragma unroll
      for (int c = 0; c < R; c++) {
        const int j = j0 + tx + 16 * c;
        float slope = 1, score = w[r][c] * scale;
        if (bent) score = bend(score, i, j, slope);
        const float weight = s.sees(i, j, seen) ? exp2f(score - lse[r]) : 0;
        ds[r][c] = weight * (ds[r][c] * factor_of(s, stay, r * R + c) - delta[r]) * slope;
      }
    }
    put_plain<N>(p, ds);
    __syncthreads();
    accumulate_plain<N, D>(dq, p, k);
  }
  store_plain<N, D>(dq, factor, dqkv + (first + i0) * token + int64_t(h) * s.head_dim, token, s.tokens - i0, s.head_dim);
}

template <class T>
const char* plain_backward(const Shape& s, const T* dy, const T* qkv, const Statistics& rows, T* dqkv, cudaStream_t stream) {
  return by_width(s, [&](auto d) -> const char* {
    constexpr int D = decltype(d)::value, N = kPlainBackwardTile<D>;
    const size_t bytes = (4 * N * kPlainRow<D> + N * (N + 4)) * sizeof(float);
    const int64_t blocks = int64_t(parts(s.tokens, N)) * s.batch;
    const char* error = start(plain_keys_kernel<T, D>, blocks * s.kv_heads, kPlainThreads, bytes, stream, s, dy, qkv, rows, dqkv);
    if (error != nullptr) return error;
    return start(plain_queries_kernel<T, D>, blocks * s.heads, kPlainThreads, bytes, stream, s, dy, qkv, rows, dqkv);
  });
}

}  // namespace flash
}  // namespace ds
