// Bytes of a file into memory, on one of Node's threads and past the stream.
#pragma once
#include <napi.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace ds {

class FileRead : public Napi::AsyncWorker {
 public:
  FileRead(Napi::Env env, char* target, size_t bytes, int file, int64_t position)
      : Napi::AsyncWorker(env, "deepspeed-ts file read"), deferred_(env), target_(target), bytes_(bytes), file_(file), position_(position) {}

  // Resolves with the bytes that there were: fewer than asked for where the file ends.
  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    while (done_ < bytes_) {
      const ssize_t count = pread(file_, target_ + done_, bytes_ - done_, off_t(position_ + int64_t(done_)));
      if (count == 0) return;
      if (count > 0) done_ += size_t(count);
      else if (errno != EINTR) return SetError(std::string("a file can't be read: ") + std::strerror(errno));
    }
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
