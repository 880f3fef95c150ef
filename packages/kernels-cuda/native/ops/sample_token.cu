// Draws a token for each row of scores [B, V], and lowers the scores of given tokens. A block of threads takes a row. Its weights
// e^((x - max) / temperature) are kept in f32; which of them stay is a threshold found by bisecting the bits of a float, which are in the order
// of floats: no sorting, and no sum whose order could change.
#include "../device.cuh"

namespace ds {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
using u64 = unsigned long long;

struct MaxKey {
  __device__ __forceinline__ u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
};

struct Draw {
  float inverse_temperature, min_p;
  double top_p;
  int64_t top_k;
};

// Larger for larger scores, and of equal ones for the first. NaN counts as -infinity.
__device__ __forceinline__ u64 key_of(float x, unsigned i) {
  const unsigned bits = __float_as_uint(x == x ? x + 0.f : -INFINITY);  // + 0: both zeros are one
  const unsigned order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return u64(order) << 32 | (0xffffffffu - i);
}

struct Row {
  const float* w;
  int size;

  __device__ int count(int least, int* room) const {
    int sum = 0;
    for (int i = threadIdx.x; i < size; i += kThreads) sum += __float_as_int(w[i]) >= least;
    return block_reduce(sum, 0, room, Sum{});
  }
  __device__ double mass(int least, double* room) const {
    float sum = 0;
    for (int i = threadIdx.x; i < size; i += kThreads) sum += __float_as_int(w[i]) >= least ? w[i] : 0.f;
    return block_reduce(double(sum), 0.0, room, Sum{});
  }
  // Warps have ranges of ids one after the other; a multiple of 32 ids each.
  __device__ int share() const { return (size + kThreads - 1) / kThreads * 32; }
};

// The largest of [low, 1] for which `holds`, which does for low, as the bits of a float.
template <class F> __device__ __forceinline__ int bisect(int low, const F& holds) {
  int beyond = 0x3f800001;
  while (beyond - low > 1) {
    const int middle = low + (beyond - low) / 2;
    if (holds(middle)) low = middle;
    else beyond = middle;
  }
  return low;
}

template <class T>
__global__ void __launch_bounds__(kThreads) sample(const T* x, const float* u, int size, Draw s, float* weights, int* ids) {
  __shared__ union {
    u64 keys[32];
    int counts[32];
    double masses[32];
  } room;
  __shared__ double shares[kWarps];
  __shared__ int chosen;
  __shared__ double left;
  const int row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const T* scores = x + int64_t(row) * size;
  u64 best = 0;
  for (int i = threadIdx.x; i < size; i += kThreads) best = MaxKey{}(best, key_of(to_float(scores[i]), unsigned(i)));
  best = block_reduce(best, u64(0), room.keys, MaxKey{});
  const int top = int(0xffffffffu - unsigned(best));
  const float max = to_float(scores[top]);
  if (u == nullptr || !isfinite(max)) {
    if (threadIdx.x == 0) ids[row] = max == max ? top : 0;
    return;
  }
  float* w = weights + int64_t(row) * size;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const float score = to_float(scores[i]);
    w[i] = score == score ? expf((score - max) * s.inverse_temperature) : 0.f;
  }
  __syncthreads();
  const Row all = {w, size};
  int least = 0;
  if (s.top_k > 0 && s.top_k < size)
    least = bisect(0, [&](int t) { return all.count(t, room.counts) >= s.top_k; });
  __syncthreads();
  if (s.top_p < 1) {
    const double wanted = s.top_p * all.mass(least, room.masses);
    least = bisect(least, [&](int t) { return all.mass(t, room.masses) >= wanted; });
  }
  if (__float_as_int(s.min_p) > least) least = __float_as_int(s.min_p);

  // In the order of ids: the mass of each warp's range, then the range that has what u says, 32 ids at a time.
  const int share = all.share(), begin = min(warp * share, size), end = min(begin + share, size);
  float sum = 0;
  for (int i = begin + lane; i < end; i += 32) sum += __float_as_int(w[i]) >= least ? w[i] : 0.f;
  const double mass = warp_reduce(double(sum), Sum{});
  if (lane == 0) shares[warp] = mass;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (int i = 0; i < kWarps; i++) total += shares[i];
    double rest = double(u[row]) * total;
    int at = 0;
    for (int i = 0; i < kWarps; i++) {
      if (shares[i] == 0) continue;
      at = i;
      if (rest < shares[i]) break;
      if (i + 1 < kWarps) rest -= shares[i];
    }
    chosen = at, left = rest;
  }
  __syncthreads();
  if (warp != chosen) return;
  double rest = left;
  int last = top;
  for (int at = begin; at < end; at += 32) {
    const int i = at + lane;
    const float weight = i < end && __float_as_int(w[i]) >= least ? w[i] : 0.f;
    double prefix = weight;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const double before = __shfl_up_sync(0xffffffffu, prefix, offset);
      if (lane >= offset) prefix += before;
    }
    const unsigned kept = __ballot_sync(0xffffffffu, weight > 0), over = __ballot_sync(0xffffffffu, weight > 0 && prefix > rest);
    if (over != 0) {
      if (lane == 0) ids[row] = at + __ffs(int(over)) - 1;
      return;
    }
    if (kept != 0) last = at + 31 - __clz(int(kept));
    rest -= __shfl_sync(0xffffffffu, prefix, 31);
  }
  if (lane == 0) ids[row] = last;  // what rounding has left
}

template <class T>
__global__ void __launch_bounds__(256) penalize(const T* x, const int* tokens, int64_t length, int columns, int size, float penalty, T* y) {
  const int row = blockIdx.y;
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= length) return;
  const int token = tokens[i * columns + (columns == 1 ? 0 : row)];
  if (token < 0 || token >= size) return;
  // A token that comes several times is written several times, with the same value: x is another tensor.
  const float score = to_float(x[int64_t(row) * size + token]);
  y[int64_t(row) * size + token] = from_float<T>(isinf(penalty) ? -penalty : score > 0 ? score / penalty : score * penalty);
}

}  // namespace

KERNEL(sample_token, kFloats) {
  const View &x = c.in[0], &ids = c.out[0];
  const int64_t rows = x.rows(), size = x.cols();
  const bool draws = c.n_in > 1;
  if (ids.dtype != I32 || ids.numel != rows || (draws && (c.in[1].dtype != F32 || c.in[1].numel != rows || !(c.attrs[0] > 0))))
    return error_text("sample_token: expected ids i32[%lld], u f32[%lld] and a temperature above 0", (long long)rows, (long long)rows);
  if (size > INT32_MAX - 2 * kThreads || rows > INT32_MAX)
    return error_text("sample_token: %lld rows of %lld are more than the kernel counts", (long long)rows, (long long)size);
  if (x.numel == 0) return nullptr;
  float* weights = nullptr;
  if (draws) {
    weights = static_cast<float*>(scratch(kScratchA, size_t(x.numel) * sizeof(float)));
    if (weights == nullptr) return kNoWorkspace;
  }
  const Draw s = {float(1 / c.attrs[0]), float(c.attrs[3]), c.attrs[2], int64_t(c.attrs[1])};
  by_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    sample<T><<<unsigned(rows), kThreads, 0, c.stream>>>(x.as<const T>(), draws ? c.in[1].as<const float>() : nullptr, int(size), s, weights,
                                                        ids.as<int>());
  });
  return nullptr;
}

KERNEL(penalize_tokens, kFloats) {
  const View &x = c.in[0], &tokens = c.in[1], &y = c.out[0];
  const int64_t rows = x.rows(), columns = tokens.cols(), length = tokens.rows();
  if (y.dtype != x.dtype || y.numel != x.numel || x.data == y.data || tokens.dtype != I32 || (columns != rows && columns != 1) || rows > 65535)
    return error_text("penalize_tokens: expected y like x, beside it, at most 65535 rows, and tokens i32[any, %lld]", (long long)rows);
  if (x.numel == 0) return nullptr;
  const cudaError_t error = cudaMemcpyAsync(y.data, x.data, size_t(x.bytes()), cudaMemcpyDeviceToDevice, c.stream);
  if (error != cudaSuccess) return cuda_error_text("penalize_tokens", error);
  if (length == 0) return nullptr;
  by_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    penalize<T><<<dim3(unsigned((length + 255) / 256), unsigned(rows)), 256, 0, c.stream>>>(
        x.as<const T>(), tokens.as<const int>(), length, int(columns), int(x.cols()), float(c.attrs[0]), y.as<T>());
  });
  return nullptr;
}

}  // namespace ds
