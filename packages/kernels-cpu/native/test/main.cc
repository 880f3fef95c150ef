// Runs the runtime without Node, so that sanitizers see it: CMakeLists.txt says how.
#include "check.h"

int main() {
  for (Test* test = Test::first(); test; test = test->next) {
    std::printf("%s\n", test->title);
    std::fflush(stdout);
    test->run();
  }
  return 0;
}
