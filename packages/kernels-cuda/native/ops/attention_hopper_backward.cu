// Launches Hopper's backward of attention: statistics, the kernel, and dQ's cast where no task of the kernel finishes it.
#include <cudaTypedefs.h>

#include <algorithm>

#include "flash/hopper_attention.h"
#include "flash/hopper_backward.cuh"
#include "flash/hopper_statistics.cuh"

namespace ds {
namespace {

using flash::HopperTasks;
using flash::HopperTile;
using flash::Shape;
using flash::Statistics;

PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    const auto error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) function = nullptr;
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return found;
}

// Built for another architecture than 90a the kernel is empty, which its registers tell.
bool built() {
  static const bool has_body = [] {
    cudaFuncAttributes attributes;
    const auto error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(flash::hopper_backward_kernel<bf16, 64, true, true>));
    if (error != cudaSuccess) (void)cudaGetLastError();
    return error == cudaSuccess && attributes.numRegs > 128;
  }();
  return has_body;
}

// [batch, tokens, heads, head_dim], read in boxes of 64 tokens x 64 columns of a head; zeros past the last token.
bool encode(CUtensorMap& map, bool bfloat, const void* data, const Shape& s, int64_t heads) {
  const cuuint64_t dims[] = {cuuint64_t(s.head_dim), cuuint64_t(heads), cuuint64_t(s.tokens), cuuint64_t(s.batch)};
  const cuuint64_t head = cuuint64_t(s.head_dim) * 2, strides[] = {head, head * heads, head * heads * s.tokens};
  const cuuint32_t box[] = {64, 1, 64, 1}, ones[] = {1, 1, 1, 1};
  return encoder()(&map, bfloat ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, const_cast<void*>(data), dims, strides,
                   box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// Causal tasks begin at the diagonal, but where few long ones make up the work: there the longest come first.
bool from_diagonal(const Shape& s) { return s.causal && (s.group == 1 || s.head_dim == 64); }

// Many side by side keep blocks from waiting and the end of a launch short, as long as their Q, dY and dQ stay in L2.
template <int D> int heads_together(const Shape& s, bool diagonal) {
  if (!diagonal) return 4;
  const int64_t head_bytes = int64_t(s.tokens) * D * 8, fitting = (int64_t(16) << 20) / head_bytes;
  return s.group > 1 || fitting < 1 ? 1 : int(std::min<int64_t>(fitting, 64));
}

template <class T, int D>
const char* launch(const Shape& s, const CUtensorMap& qkv_map, const CUtensorMap& dy_map, const T* dy, const T* y, const float* lse, T* dqkv,
                   cudaStream_t stream) {
  using Tile = HopperTile<D>;
  const int64_t rows = int64_t(s.batch) * s.heads * s.padded();
  const int64_t tiles = int64_t(s.batch) * s.heads * flash::parts(s.tokens, Tile::queries);
  const size_t counters_bytes = (size_t(flash::kTickets + tiles) * 4 + 255) / 256 * 256, statistics_bytes = size_t(2 * rows) * 4;
  auto* room = static_cast<unsigned char*>(scratch(kScratchAttention, counters_bytes + statistics_bytes + size_t(tiles) * Tile::gradient * 4));
  if (room == nullptr) return kNoWorkspace;
  auto* counters = reinterpret_cast<unsigned*>(room);
  auto* lse_rows = reinterpret_cast<float*>(room + counters_bytes);
  auto* dq = reinterpret_cast<float*>(room + counters_bytes + statistics_bytes);
  const Statistics statistics = {lse_rows, lse_rows + rows};
  if (const char* failed = flash::hopper_statistics<T, D>(s, dy, y, lse, statistics, counters, flash::kTickets + tiles, stream)) return failed;
  const bool diagonal = from_diagonal(s);
  HopperTasks tasks = {};
  tasks.heads = s.batch * s.kv_heads, tasks.blocks = flash::parts(s.tokens, flash::kHopperKeys), tasks.tiles = flash::parts(s.tokens, Tile::queries);
  tasks.together = std::min(tasks.heads, heads_together<D>(s, diagonal));
  tasks.count = unsigned(tasks.heads) * tasks.blocks;
  const auto kernel = diagonal   ? flash::hopper_backward_kernel<T, D, true, true>
                      : s.causal ? flash::hopper_backward_kernel<T, D, true, false>
                                 : flash::hopper_backward_kernel<T, D, false, false>;
  const int64_t blocks = std::min<int64_t>(tasks.count, device_properties().multiprocessors);
  if (const char* failed =
          flash::start(kernel, blocks, flash::kHopperThreads, Tile::bytes, stream, s, tasks, qkv_map, dy_map, statistics, dq, counters, dqkv))
    return failed;
  if (diagonal && s.group == 1) return nullptr;  // the tasks that add last have finished dQ
  return flash::start(flash::hopper_gradient_kernel<T, D>, 2 * tiles, 256, 0, stream, s, dq, dqkv);
}

}  // namespace

bool hopper_attention_backward(const Shape& s, int dtype, const void* dy, const void* qkv, const void* y, const float* lse, void* dqkv,
                               cudaStream_t stream, const char** error) {
  const DeviceProperties& device = device_properties();
  if (device.major != 9 || device.minor != 0 || device.shared_memory < HopperTile<128>::bytes) return false;
  if ((dtype != BF16 && dtype != F16) || (s.head_dim != 64 && s.head_dim != 128)) return false;
  // Rows of scores are counted in 32 bits; so are tickets, and there are fewer.
  if (int64_t(s.batch) * s.heads * s.padded() > 0x7fffff00) return false;
  if (s.window != 0 || s.dropped != 0 || s.positions != nullptr || !(s.scale > 0) || encoder() == nullptr || !built()) return false;
  for (const void* tensor : {dy, qkv, y, static_cast<const void*>(dqkv)})
    if (!is_aligned(tensor, 16)) return false;
  CUtensorMap qkv_map, dy_map;
  if (!encode(qkv_map, dtype == BF16, qkv, s, s.heads + 2 * s.kv_heads) || !encode(dy_map, dtype == BF16, dy, s, s.heads)) return false;
  const auto run = [&](auto tag, auto dim) {
    using T = typename decltype(tag)::type;
    constexpr int D = decltype(dim)::value;
    *error = launch<T, D>(s, qkv_map, dy_map, static_cast<const T*>(dy), static_cast<const T*>(y), lse, static_cast<T*>(dqkv), stream);
  };
  const auto by_dim = [&](auto tag) {
    if (s.head_dim == 64) run(tag, std::integral_constant<int, 64>{});
    else run(tag, std::integral_constant<int, 128>{});
  };
  if (dtype == BF16) by_dim(Tag<bf16>{});
  else by_dim(Tag<f16>{});
  return true;
}

}  // namespace ds
