#include "stream.h"

#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "check.h"
#include "pool.h"
#include "registry.h"

using namespace ds;

namespace {

View view(void* data, int64_t n) {
  View v{};
  v.data = data, v.dtype = F32, v.rank = 1, v.dims[0] = v.numel = n;
  return v;
}

void fill(float* data, int64_t n, double value) {
  const Launch launch = stream_launch(kernel_id("fill"), 0, 1, 1);
  launch.views[0] = view(data, n);
  launch.attrs[0] = value;
  stream_commit();
}

void copy(float* from, int64_t n, float* to, int64_t m) {
  const Launch launch = stream_launch(kernel_id("copy"), 1, 1, 0);
  launch.views[0] = view(from, n);
  launch.views[1] = view(to, m);
  stream_commit();
}

FailurePtr read(const float* data, float* value) {
  ReadRequest request;
  request.source = data, request.target = value, request.bytes = sizeof *value;
  stream_read(&request);
  CHECK(stream_wait_until(stream_position()));
  return request.failure;
}

struct SlowWork : StreamWork {
  std::atomic<bool> finished{false};
  FailurePtr failure;
  FailurePtr wait() override {
    while (!finished) std::this_thread::yield();
    return failure;
  }
};

}  // namespace

TEST("parallel() covers every item once, at any number of threads, nested calls too") {
  for (int threads : {1, 4, 2, 3}) {
    pool_set_threads(threads);
    for (int round = 0; round < 2000; round++) {
      const size_t n = size_t(1 + round * 7 % 1000);
      std::vector<std::atomic<int>> seen(n);
      parallel(int64_t(n), 1 + round % 50, [&](int64_t begin, int64_t end, int worker) {
        CHECK(worker >= 0 && worker < pool_threads());
        parallel(end - begin, 10, [&](int64_t b, int64_t e, int inner) {
          CHECK(inner >= 0 && inner < pool_threads());
          for (int64_t i = b; i < e; i++) seen[size_t(begin + i)]++;
        });
      });
      for (auto& count : seen) CHECK(count == 1);
    }
  }
  pool_set_threads(1);
}

TEST("commands run in order, also when the queue wraps and is full") {
  stream_start();
  std::vector<float> a(64), b(64);
  float value;
  for (int i = 0; i < 20000; i++) {
    fill(a.data(), 64, i);
    copy(a.data(), 64, b.data(), 64);
    if (i % 997 == 0) {
      CHECK(!read(b.data(), &value));
      CHECK(value == float(i));
    }
  }
  CHECK(!read(b.data(), &value) && value == 19999);
  CHECK(stream_stop(1000));
}

TEST("host bytes are copied at the call, small and large, behind what is queued") {
  stream_start();
  std::vector<float> device(100000), host(100000);
  for (int64_t n : {10, 1000, 100000})
    for (int i = 0; i < 50; i++) {
      fill(device.data(), 100000, -1);
      host[size_t(n) - 1] = float(i);
      stream_write(device.data(), host.data(), size_t(n) * sizeof(float));
      host[size_t(n) - 1] = -2;
      float value;
      CHECK(!read(&device[size_t(n) - 1], &value));
      CHECK(value == float(i));
    }
  CHECK(stream_stop(1000));
}

TEST("a failed kernel skips what was queued after it, until its failure was reported") {
  stream_start();
  float a[2] = {1, 1}, b[3] = {}, value = -1;
  copy(a, 2, b, 3);
  fill(a, 2, 5);
  FailurePtr failure = read(a, &value);
  CHECK(failure && failure->kind == "kernel" && failure->op == "copy" && value == -1);
  CHECK(stream_failed());
  fill(a, 2, 6);
  CHECK(read(a, &value) == failure);
  stream_forgive(failure);
  fill(a, 2, 7);
  CHECK(!read(a, &value) && value == 7);
  stream_forgive(failure);  // an old report does not clear a new failure
  copy(a, 2, b, 3);
  stream_forgive(failure);
  CHECK(read(a, &value) && read(a, &value) != failure);
  CHECK(stream_stop(1000));
}

TEST("the stream waits for another thread's work, and its failure stays") {
  stream_start();
  float a[1] = {0}, value = -1;
  auto work = std::make_shared<SlowWork>();
  stream_enqueue_wait(work);
  fill(a, 1, 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(stream_executed() < stream_position());
  work->finished = true;
  CHECK(!read(a, &value) && value == 3);
  auto failing = std::make_shared<SlowWork>();
  auto lost = std::make_shared<Failure>();
  lost->kind = "peer_lost";
  failing->failure = lost, failing->finished = true;
  stream_enqueue_wait(failing);
  for (int i = 0; i < 3; i++) {
    FailurePtr failure = read(a, &value);
    CHECK(failure && failure->kind == "peer_lost");
    stream_forgive(failure);
  }
  CHECK(stream_stop(1000));
}

TEST("other threads wait for positions, and stopping lets them go") {
  stream_start();
  float a[1];
  std::vector<std::thread> waiters;
  std::atomic<int> reached{0}, stopped{0};
  for (int i = 0; i < 3; i++) {
    fill(a, 1, i);
    waiters.emplace_back([&, at = stream_position()] {
      CHECK(stream_wait_until(at) && stream_executed() >= at);
      reached++;
      (stream_wait_until(at + 100) ? reached : stopped)++;
    });
  }
  while (reached < 3) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(stream_stop(1000));
  for (auto& waiter : waiters) waiter.join();
  CHECK(stopped == 3);
}

TEST("stopping drops what is queued behind a long command and gives its memory back") {
  stream_start();
  auto work = std::make_shared<SlowWork>();
  stream_enqueue_wait(work);
  std::vector<char> bytes(1 << 20), device(1 << 20);
  for (int i = 0; i < 20; i++) stream_write(device.data(), bytes.data(), bytes.size());
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    work->finished = true;
  });
  CHECK(stream_stop(5000));
  late.join();
}
