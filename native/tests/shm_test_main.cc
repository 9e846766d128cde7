// mbridge_shm_tests [--bench | [--tcp] how the names of the tests to run begin]: prints a line a test; exit status 1 if
// one failed.
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "tests/shm_harness.h"

namespace {

int files_in_dev_shm() {
  DIR* dir = opendir("/dev/shm");
  if (!dir) return 0;
  int count = 0;
  while (const dirent* entry = readdir(dir)) count += strstr(entry->d_name, "mbridge") != nullptr;
  closedir(dir);
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mb::shm_test;
  if (argc > 1 && !strcmp(argv[1], "--bench")) return bench();
  if (argc > 1 && !strcmp(argv[1], "--tcp")) {
    over_tcp = true;
    argc--;
    argv++;
  }
  int passed = 0, failed = 0, skipped = 0;
  for (const auto& tests : {collective_tests(), p2p_tests(), failure_tests(), memory_tests(), tcp_tests()}) {
    for (const Test& test : tests) {
      if (!(test.over & (over_tcp ? kTcp : kShm))) continue;
      if (argc > 1 && strncmp(test.name, argv[1], strlen(argv[1])) != 0) continue;
      const double start = seconds();
      const int result = test.run();
      (result == 0 ? passed : result < 0 ? skipped : failed)++;
      printf("%s %s (%.2f s)\n", result == 0 ? "ok  " : result < 0 ? "skip" : "FAIL", test.name, seconds() - start);
      fflush(stdout);
    }
  }
  if (const int left = files_in_dev_shm()) {
    printf("FAIL %d files of ours in /dev/shm\n", left);
    failed++;
  }
  printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed || !passed ? 1 : 0;
}
