// NVIDIA's libraries (cuBLASLt, cuDNN, NCCL), opened at run time: the addon builds and loads without them.
#pragma once
#include <string>

namespace ds {

struct Library {
  void* handle = nullptr;   // nullptr: not found
  std::string path;         // what was opened
  std::string reason;       // where it was looked for, when not found
};

// Where the environment variable `variable` is set, only there; else in the usual places. Looks for the first of `names` (e.g. {"libcudnn.so.9", "libcudnn.so"}, ended by nullptr) in: the folders of the environment
// variable `variable` (DEEPSPEED_TS_CUDNN_PATH and the like: a file or folders separated by ':'), what the process has loaded and the system's own search (LD_LIBRARY_PATH,
// ld.so.cache), CUDA_HOME / CUDA_PATH / /usr/local/cuda (lib64, lib, targets/*/lib), and the folders of pip's wheels below
// VIRTUAL_ENV, CONDA_PREFIX and the usual prefixes (.../site-packages/nvidia/*/lib). Opened with RTLD_NOW | RTLD_GLOBAL.
Library open_library(const char* variable, const char* const* names);

// Fills a table of function pointers: name by name, false with `missing` set at the first that is not there.
struct Symbol {
  const char* name;
  void** target;
};
bool load_symbols(const Library& library, const Symbol* symbols, size_t count, std::string* missing);

}  // namespace ds
