#include "device.h"

#include "dispatcher.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ds {
namespace {

DeviceProperties opened;
bool is_open;
Fault* faults;

struct Block {
  void* data;
  size_t bytes;
};
Block workspace[kScratchSlots];
std::vector<Block> retired;
std::atomic<size_t> workspace_total;

DeviceProperties properties_of(int index) {
  cudaDeviceProp p;
  DeviceProperties d{};
  if (cudaGetDeviceProperties(&p, index) != cudaSuccess) return d;
  d.index = index;
  d.major = p.major, d.minor = p.minor;
  d.multiprocessors = p.multiProcessorCount;
  d.shared_memory = p.sharedMemPerBlockOptin;
  d.l2_bytes = size_t(p.l2CacheSize);
  d.memory_bytes = p.totalGlobalMem;
  std::snprintf(d.name, sizeof d.name, "%s", p.name);
  return d;
}

}  // namespace

std::vector<DeviceProperties> list_devices(std::string* reason) {
  // Loading a kernel at its first launch may wait for the device, which would never come back while a collective there waits for this
  // very launch: all kernels are loaded at the start.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();  // not ours to report twice
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) *reason = "no CUDA driver is installed (libcuda.so.1 was not found)";
    else if (error == cudaErrorInsufficientDriver)
      *reason = "the CUDA driver is too old: it serves CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                ", this build needs " + std::to_string(CUDART_VERSION / 1000) + ".0 or newer; update the NVIDIA driver";
    else *reason = std::string("the CUDA driver reports: ") + cudaGetErrorString(error);
    return {};
  }
  if (count == 0) *reason = "the CUDA driver sees no GPU (is CUDA_VISIBLE_DEVICES empty?)";
  std::vector<DeviceProperties> devices;
  for (int i = 0; i < count; i++) devices.push_back(properties_of(i));
  return devices;
}

const char* open_device(int index) {
  if (is_open && opened.index == index) return nullptr;
  if (is_open)
    return error_text("this process drives GPU %d already; start one process per GPU (the deepspeed launcher) to use GPU %d", opened.index, index);
  std::string reason;
  const auto devices = list_devices(&reason);
  if (devices.empty()) return error_text("there is no CUDA device: %s", reason.c_str());
  if (index < 0 || index >= int(devices.size()))
    return error_text("there is no GPU %d: this process sees %zu, numbered from 0", index, devices.size());
  cudaError_t error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaFree(nullptr);  // makes the context now, where a failure can be told
  if (error == cudaSuccess) error = cudaHostAlloc(reinterpret_cast<void**>(&faults), sizeof(Fault), cudaHostAllocMapped);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return error_text("GPU %d (%s) could not be opened: %s", index, devices[size_t(index)].name, cudaGetErrorString(error));
  }
  std::memset(faults, 0, sizeof *faults);
  opened = devices[size_t(index)];
  is_open = true;
  return nullptr;
}

bool device_is_open() { return is_open; }
const DeviceProperties& device_properties() { return opened; }
Fault* fault_slot() { return faults; }

void* scratch(ScratchSlot slot, size_t bytes) {
  Block& block = workspace[slot];
  if (bytes <= block.bytes) return block.data;
  // cudaFree waits for work that still uses the old block. While a graph is being captured that work has not even begun: the block
  // is kept then until release_workspace().
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (block.data && cudaStreamIsCapturing(dispatcher_stream(), &status) == cudaSuccess && status == cudaStreamCaptureStatusActive) {
    retired.push_back(block);
  } else {
    cudaFree(block.data);
    workspace_total -= block.bytes;
  }
  block = {};
  const size_t rounded = (bytes + (size_t(2) << 20) - 1) >> 21 << 21;
  if (cudaMalloc(&block.data, rounded) != cudaSuccess) {
    cudaGetLastError();
    block = {};
    return nullptr;
  }
  block.bytes = rounded;
  workspace_total += rounded;
  return block.data;
}

size_t workspace_bytes() { return workspace_total; }

void release_workspace() {
  for (const Block& block : retired) {
    cudaFree(block.data);
    workspace_total -= block.bytes;
  }
  retired.clear();
  for (Block& block : workspace) {
    cudaFree(block.data);
    workspace_total -= block.bytes;
    block = {};
  }
}

std::string take_fault(std::string* op) {
  const int32_t code = __atomic_load_n(&faults->code, __ATOMIC_ACQUIRE);
  if (code <= kNoFault) return {};
  const Fault fault = *faults;
  __atomic_store_n(&faults->code, int32_t(kNoFault), __ATOMIC_RELEASE);
  switch (code) {
    case kFaultEmbeddingId:
      *op = "embedding";
      return error_text("id %lld at position %lld is outside the table's 0..%lld", fault.a, fault.b, fault.c - 1);
    case kFaultLabel:
      *op = "linear_cross_entropy";
      return error_text("label %lld at position %lld is outside the vocabulary's 0..%lld", fault.a, fault.b, fault.c - 1);
    case kFaultDocument:
      *op = "attention";
      return error_text("position %lld at token %lld of the batch, expected 0 to %lld: positions count from 0 in each document", fault.a,
                        fault.b, fault.c);
    case kFaultPosition:
      *op = "rope";
      return error_text("position %lld at token %lld of the batch is outside the table's 0..%lld", fault.a, fault.b, fault.c - 1);
  }
  *op = "kernel";
  return error_text("fault %d (%lld, %lld, %lld)", int(code), fault.a, fault.b, fault.c);
}

void device_memory(size_t* free_bytes, size_t* total_bytes) {
  if (cudaMemGetInfo(free_bytes, total_bytes) != cudaSuccess) {
    cudaGetLastError();
    *free_bytes = *total_bytes = 0;
  }
}

}  // namespace ds
