#include "graphs.h"

#include "completion.h"
#include "staging.h"

namespace ds {

cudaError_t Graphs::before_launch(cudaStream_t stream, uint64_t fingerprint) {
  if (warm_up_ != 0) return cudaSuccess;
  if (!capturing_) {
    // Relaxed: workspace may grow, and JavaScript's thread may allocate, while a capture is open.
    const cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
    if (error != cudaSuccess) return error;
    capturing_ = true;
    sequence_ = 0;
  }
  sequence_ = (sequence_ ^ fingerprint) * 0x9E3779B97F4A7C15u + 1;
  return cudaSuccess;
}

cudaError_t Graphs::flush(cudaStream_t stream, bool run) {
  if (!capturing_) {
    if (warm_up_ > 0) warm_up_--;
    return cudaSuccess;
  }
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream, &graph);
  if (error == cudaSuccess && run) {
    cudaGraphExec_t& exec = kept_[sequence_];
    cudaGraphExecUpdateResultInfo info;
    if (exec && cudaGraphExecUpdate(exec, graph, &info) != cudaSuccess) {
      cudaGetLastError();
      cudaGraphExecDestroy(exec);
      exec = nullptr;
    }
    if (!exec) error = cudaGraphInstantiate(&exec, graph, 0);
    if (error == cudaSuccess) error = cudaGraphLaunch(exec, stream);
    if (!exec) kept_.erase(sequence_);
  }
  if (graph) cudaGraphDestroy(graph);
  return_held(stream);
  if (kept_.size() > kMostKept) {
    for (auto& [key, exec] : kept_) cudaGraphExecDestroy(exec);
    kept_.clear();
  }
  return error;
}

void Graphs::return_held(cudaStream_t stream) {
  if (held_.empty()) return;
  const cudaEvent_t event = completion().event();
  cudaEventRecord(event, stream);
  completion().when(event, [chunks = std::move(held_)](cudaError_t) {
    for (void* chunk : chunks) staging().give(chunk);
  });
  held_.clear();
}

}  // namespace ds
