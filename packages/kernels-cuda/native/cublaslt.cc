#include "cublaslt.h"

#include <string>

#include "library.h"

namespace ds {

namespace {

struct Opened {
  lt::Table table = {};
  std::string path;
  std::string reason;  // why it is not usable

  Opened() {
    static const char* const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", nullptr};
    const Library library = open_library("DEEPSPEED_TS_CUBLASLT_PATH", names);
    if (!library.handle) {
      reason = "cuBLASLt is needed for matrix products: " + library.reason;
      return;
    }
    lt::Table& t = table;
    const Symbol symbols[] = {
        {"cublasLtCreate", (void**)&t.create},
        {"cublasLtGetStatusString", (void**)&t.status_string},
        {"cublasLtGetVersion", (void**)&t.version},
        {"cublasLtMatmul", (void**)&t.matmul},
        {"cublasLtMatmulDescCreate", (void**)&t.operation_create},
        {"cublasLtMatmulDescDestroy", (void**)&t.operation_destroy},
        {"cublasLtMatmulDescSetAttribute", (void**)&t.operation_set},
        {"cublasLtMatrixLayoutCreate", (void**)&t.layout_create},
        {"cublasLtMatrixLayoutDestroy", (void**)&t.layout_destroy},
        {"cublasLtMatrixLayoutSetAttribute", (void**)&t.layout_set},
        {"cublasLtMatmulPreferenceCreate", (void**)&t.preference_create},
        {"cublasLtMatmulPreferenceDestroy", (void**)&t.preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", (void**)&t.preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", (void**)&t.heuristics},
        {"cublasLtMatmulAlgoConfigGetAttribute", (void**)&t.algorithm_get},
    };
    std::string missing;
    if (!load_symbols(library, symbols, sizeof symbols / sizeof *symbols, &missing)) {
      reason = "cuBLASLt is needed for matrix products: " + library.path + " has no " + missing +
               "; CUDA 12 or later is needed, set DEEPSPEED_TS_CUBLASLT_PATH to the folder of a newer library";
      return;
    }
    path = library.path;
  }

  // On the device that is current, so not before the first product: a report may be asked for by any thread.
  void create_handle() {
    if (table.handle || !reason.empty()) return;
    if (const lt::Status status = table.create(&table.handle)) {
      reason = "cuBLASLt (" + path + ") could not be set up on this device: " + table.status_string(status);
      table.handle = nullptr;
    }
  }
};

Opened& opened() {
  static Opened it;
  return it;
}

}  // namespace

const lt::Table* cublaslt() {
  opened().create_handle();
  return opened().reason.empty() ? &opened().table : nullptr;
}

const char* cublaslt_unavailable() { return opened().reason.empty() ? nullptr : opened().reason.c_str(); }

}  // namespace ds
