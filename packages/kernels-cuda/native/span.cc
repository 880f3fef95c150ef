#include "span.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernel.h"

namespace ds {
namespace {

// The driver's functions, found through the runtime: nothing links against libcuda.
struct Driver {
  CUresult (*reserve)(CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long);
  CUresult (*create)(CUmemGenericAllocationHandle*, size_t, const CUmemAllocationProp*, unsigned long long);
  CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
  CUresult (*access)(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t);
  CUresult (*unmap)(CUdeviceptr, size_t);
  CUresult (*release)(CUmemGenericAllocationHandle);
  bool ok = false;

  Driver() {
    ok = find("cuMemAddressReserve", reserve) && find("cuMemCreate", create) && find("cuMemMap", map) && find("cuMemSetAccess", access) &&
         find("cuMemUnmap", unmap) && find("cuMemRelease", release);
  }
  template <class F> static bool find(const char* name, F& function) {
    void* pointer = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion(name, &pointer, 12000, cudaEnableDefault, &found) != cudaSuccess) return false;
    function = reinterpret_cast<F>(pointer);
    return found == cudaDriverEntryPointSuccess && pointer != nullptr;
  }
};

const Driver& driver() {
  static const Driver instance;
  return instance;
}

CUmemAllocationProp properties() {
  CUmemAllocationProp p = {};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p.location.id = device_properties().index;
  return p;
}

}  // namespace

bool Span::reserve(size_t most, size_t step, std::string* reason) {
  step_ = step;
  most_ = (most + step - 1) / step * step;
  if (!driver().ok) return *reason = "the CUDA driver has no virtual memory functions; update the NVIDIA driver", false;
  const CUresult result = driver().reserve(&base_, most_, 0, 0, 0);
  if (result != CUDA_SUCCESS) return *reason = "reserving addresses failed with CUDA error " + std::to_string(int(result)), false;
  return true;
}

size_t Span::grow(size_t bytes, std::string* reason) {
  const size_t rounded = (bytes + step_ - 1) / step_ * step_;
  if (rounded > most_ - bytes_) return *reason = "that is more than the device has", 0;
  const CUmemAllocationProp prop = properties();
  CUmemGenericAllocationHandle handle;
  CUresult result = driver().create(&handle, rounded, &prop, 0);
  if (result != CUDA_SUCCESS) {
    *reason = result == CUDA_ERROR_OUT_OF_MEMORY ? "the device has no more" : "cuMemCreate failed with CUDA error " + std::to_string(int(result));
    return 0;
  }
  CUmemAccessDesc access = {};
  access.location = prop.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  result = driver().map(base_ + bytes_, rounded, 0, handle, 0);
  if (result == CUDA_SUCCESS) {
    result = driver().access(base_ + bytes_, rounded, &access, 1);
    if (result != CUDA_SUCCESS) driver().unmap(base_ + bytes_, rounded);
  }
  if (result != CUDA_SUCCESS) {
    driver().release(handle);
    *reason = "mapping device memory failed with CUDA error " + std::to_string(int(result));
    return 0;
  }
  pieces_.push_back({handle, rounded});
  bytes_ += rounded;
  return rounded;
}

void Span::shrink(size_t keep) {
  while (!pieces_.empty() && bytes_ - pieces_.back().bytes >= keep) {
    const Piece piece = pieces_.back();
    pieces_.pop_back();
    bytes_ -= piece.bytes;
    driver().unmap(base_ + bytes_, piece.bytes);
    driver().release(piece.handle);
  }
}

}  // namespace ds
