// What this machine can do, measured without the library: `peaks THREADS` prints one JSON line. Compiled by the benchmark for
// the machine it runs on.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include <sys/mman.h>

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
#if defined(__x86_64__)
#define DS_REGISTER "+v"
#else
#define DS_REGISTER "+w"
#endif
typedef float Vector __attribute__((vector_size(kLanes * 4)));

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of several runs over all threads at once.
double best_time(int threads, int runs, const std::function<void(int)>& body) {
  double best = 1e30;
  for (int run = 0; run < runs; run++) {
    double start = seconds();
    std::vector<std::thread> helpers;
    for (int t = 1; t < threads; t++) helpers.emplace_back(body, t);
    body(0);
    for (auto& helper : helpers) helper.join();
    best = std::min(best, seconds() - start);
  }
  return best;
}

volatile float sink;

// Independent chains of fused multiply-adds in registers: more than latency times ports.
constexpr int kChains = 12;
constexpr int64_t kRounds = 20'000'000;

// An array would live in memory between rounds; variables of their own stay in registers. The empty asm keeps every product.
#define CHAIN(x) x = x * a + b, ({ asm volatile("" : DS_REGISTER(x)); })
void fma_chains(int) {
  Vector a = Vector{} + 0.999f, b = Vector{} + 0.001f;
  Vector c0 = b, c1 = b, c2 = b, c3 = b, c4 = b, c5 = b, c6 = b, c7 = b, c8 = b, c9 = b, c10 = b, c11 = b;
  for (int64_t i = 0; i < kRounds; i++) {
    CHAIN(c0), CHAIN(c1), CHAIN(c2), CHAIN(c3), CHAIN(c4), CHAIN(c5);
    CHAIN(c6), CHAIN(c7), CHAIN(c8), CHAIN(c9), CHAIN(c10), CHAIN(c11);
  }
  Vector total = ((c0 + c1) + (c2 + c3)) + ((c4 + c5) + (c6 + c7)) + ((c8 + c9) + (c10 + c11));
  sink = total[0];
}

float* pages(int64_t n) {
  void* p = mmap(nullptr, n * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  madvise(p, n * 4, MADV_HUGEPAGE);
  std::fill_n(static_cast<float*>(p), n, 1.0f);
  return static_cast<float*>(p);
}

}  // namespace

int main(int argc, char** argv) {
  int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  double fma = best_time(threads, 5, fma_chains);
  double gflops = threads * double(kRounds) * kChains * kLanes * 2 / fma / 1e9;

  constexpr int64_t n = 32 << 20;  // 128 MiB an array, far beyond any cache
  float *a = pages(n), *b = pages(n), *c = pages(n), *d = pages(n);
  auto part = [&](int t) { return std::pair(n * t / threads, n * (t + 1) / threads); };
  double triad = best_time(threads, 7, [&](int t) {
    auto [i0, i1] = part(t);
    for (int64_t i = i0; i < i1; i++) a[i] = b[i] + 3.0f * c[i];
  });
  double read = best_time(threads, 7, [&](int t) {
    auto [i0, i1] = part(t);
    Vector sums[4] = {};
    for (int64_t i = i0; i + 4 * kLanes <= i1; i += 4 * kLanes)
      for (int k = 0; k < 4; k++) sums[k] += *reinterpret_cast<const Vector*>(a + i + k * kLanes);
    sink = sums[0][0] + sums[1][0] + sums[2][0] + sums[3][0];
  });
  // AdamW's traffic without its arithmetic: four arrays read, three written.
  double stream = best_time(threads, 7, [&](int t) {
    auto [i0, i1] = part(t);
    for (int64_t i = i0; i < i1; i++) {
      float g = d[i];
      a[i] += g;
      b[i] += g;
      c[i] += g;
    }
  });
  double copy = best_time(threads, 7, [&](int t) {
    auto [i0, i1] = part(t);
    std::copy(b + i0, b + i1, a + i0);
  });
  std::printf("{\"threads\":%d,\"fmaGflops\":%.1f,\"triadGBs\":%.1f,\"readGBs\":%.1f,\"adamStreamGBs\":%.1f,\"copyGBs\":%.1f}\n", threads, gflops,
              12.0 * n / triad / 1e9, 4.0 * n / read / 1e9, 28.0 * n / stream / 1e9, 8.0 * n / copy / 1e9);
}
