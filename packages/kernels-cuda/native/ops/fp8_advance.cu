// The end of a step for the scales of 8-bit tensors: what was measured goes into the history, and the largest of that sets the next scale.
#include "../fp8.cuh"

namespace ds {
namespace {

constexpr int kHistoryThreads = 128;

__global__ void set_scale_kernel(float* state, bool e5m2, int margin) {
  state[0] = fp8::scale_for(state[1], e5m2, margin, state[0]);
}

// A block for each tensor; every third is a gradient.
__global__ void __launch_bounds__(kHistoryThreads) advance_kernel(float* states, int length, int place, int margin, int latest) {
  __shared__ float room[32];
  float* state = states + int64_t(blockIdx.x) * length;
  float* history = state + 2;
  if (threadIdx.x == 0) {
    const float seen = state[1];
    history[place] = seen <= 3.4e38f ? seen : 0.0f;  // an overflow says nothing about the next step
    state[1] = 0.0f;
  }
  __syncthreads();
  float most = 0.0f;
  for (int i = threadIdx.x; i < length - 2; i += kHistoryThreads) most = fmaxf(most, history[i]);
  most = block_reduce(most, 0.0f, room, Max());
  if (threadIdx.x != 0) return;
  if (latest) most = history[place];
  state[0] = fp8::scale_for(most, blockIdx.x % 3 == 2, margin, state[0]);
}

}  // namespace

void fp8::set_scale(float* state, bool e5m2, int margin, cudaStream_t stream) { set_scale_kernel<<<1, 1, 0, stream>>>(state, e5m2, margin); }

// out: states [n, 3, 2 + history]. attrs: place in the history, margin, latest.
KERNEL(fp8_advance, dtype_bit(F32) | dtype_bit(BF16)) {
  const View& states = c.out[0];
  const int length = int(states.cols()), place = int(c.attrs[0]);
  if (states.dtype != F32 || length < 3 || place < 0 || place >= length - 2) return "fp8_advance: f32 states with a history that has the place";
  if (states.numel > 0)
    advance_kernel<<<unsigned(states.rows()), kHistoryThreads, 0, c.stream>>>(states.as<float>(), length, place, int(c.attrs[1]), int(c.attrs[2]));
  return nullptr;
}

}  // namespace ds
