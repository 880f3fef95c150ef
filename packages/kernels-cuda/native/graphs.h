// Launches gathered into CUDA graphs. Between two points where the host looks at the device (a read, a collective), work on the
// compute stream is captured instead of queued, and then runs as one graph. A sequence of launches that comes again updates the
// graph it had, with its new arguments: nothing is assumed to stay the same between steps, so results are those of plain launches.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace ds {

class Graphs {
 public:
  // Takes effect with the next launch. The first sequences after it run as plain launches: workspace grows and matrix products
  // choose their algorithms there.
  void enable(bool on) { warm_up_ = on ? kWarmUp : -1; }
  // Before a launch: opens a capture where there is none. `fingerprint` stands for the kernel and its shapes.
  cudaError_t before_launch(cudaStream_t stream, uint64_t fingerprint);
  // Ends the capture, if there is one, and runs what it holds. `run` false: drops it.
  cudaError_t flush(cudaStream_t stream, bool run = true);
  bool capturing() const { return capturing_; }
  // A staging chunk that captured work reads: returned once the graph has run.
  void hold(void* chunk) { held_.push_back(chunk); }

 private:
  static constexpr int kWarmUp = 8;
  static constexpr size_t kMostKept = 64;  // graphs; more means that shapes vary, and then keeping them is no use

  void return_held(cudaStream_t stream);

  int warm_up_ = -1;  // sequences still to run plainly; -1: off
  bool capturing_ = false;
  uint64_t sequence_ = 0;
  std::unordered_map<uint64_t, cudaGraphExec_t> kept_;
  std::vector<void*> held_;
};

}  // namespace ds
