// The whole test framework: a test is a function with a sentence, a failed CHECK says where and ends the run.
#pragma once
#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (0)

struct Test {
  const char* title;
  void (*run)();
  Test* next;
  static Test*& first() {
    static Test* head = nullptr;
    return head;
  }
  Test(const char* title, void (*run)()) : title(title), run(run), next(first()) { first() = this; }
};

#define TEST_NAME_(line) test_##line
#define TEST_NAME(line) TEST_NAME_(line)
#define TEST_OBJECT_(line) test_object_##line
#define TEST_OBJECT(line) TEST_OBJECT_(line)
#define TEST(title)                                                                    \
  static void TEST_NAME(__LINE__)();                                                   \
  static Test TEST_OBJECT(__LINE__)(title, TEST_NAME(__LINE__));                       \
  static void TEST_NAME(__LINE__)()
