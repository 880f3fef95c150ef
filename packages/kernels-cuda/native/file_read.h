// Bytes of a file into memory of the device, or of the host that the device reaches, on one of Node's threads and past the
// compute stream: through pinned memory, piece by piece, while other reads are at other pieces.
#pragma once
#include <cuda_runtime_api.h>
#include <napi.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "kernel.h"
#include "staging.h"

namespace ds {

class FileRead : public Napi::AsyncWorker {
 public:
  FileRead(Napi::Env env, char* target, size_t bytes, int file, int64_t position)
      : Napi::AsyncWorker(env, "deepspeed-ts file read"), deferred_(env), target_(target), bytes_(bytes), file_(file), position_(position) {}

  // Resolves with the bytes that there were: fewer than asked for where the file ends. They are on the device then.
  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    if (bytes_ == 0) return;
    const size_t piece = std::min(bytes_, Staging::kChunk);
    void* chunk = staging().take(piece);
    if (!chunk) return SetError("the host has no memory left to pin for reading a file");
    cudaSetDevice(device_properties().index);
    while (done_ < bytes_) {
      const ssize_t count = pread(file_, chunk, std::min(piece, bytes_ - done_), off_t(position_ + int64_t(done_)));
      if (count == 0) break;
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) {
        SetError(std::string("a file can't be read: ") + std::strerror(errno));
        break;
      }
      // A stream of this thread: the compute stream neither waits for it nor is waited for.
      cudaError_t error = cudaMemcpyAsync(target_ + done_, chunk, size_t(count), cudaMemcpyDefault, cudaStreamPerThread);
      if (error == cudaSuccess) error = cudaStreamSynchronize(cudaStreamPerThread);
      if (error != cudaSuccess) {
        SetError(std::string("bytes of a file can't be copied to the device: ") + cudaGetErrorString(error));
        break;
      }
      done_ += size_t(count);
    }
    staging().give(chunk);
  }
  void OnOK() override { deferred_.Resolve(Napi::Number::New(Env(), double(done_))); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  char* target_;
  size_t bytes_, done_ = 0;
  int file_;
  int64_t position_;
};

}  // namespace ds
