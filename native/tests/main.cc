// mbridge_native_tests [--backend libmbridge_cuda.so] [--seed N] [--only TEXT] [--bench] [--threads N]
//
// Runs every op against a float64 reference with fresh random inputs, for every activation dtype that the backend has,
// and again with other thread counts (a second time on a GPU): the outputs must agree bit for bit. With --bench it
// measures instead: ops, and fp8 on a GPU.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/host.h"
#include "cpu/backend.h"
#include "tests/harness.h"

namespace mb::test {
namespace {

struct Options {
  std::string backend;
  std::string only;
  uint64_t seed = 0;
  int threads = 0;
  bool bench = false;
};

bool parse(int argc, char** argv, Options* out) {
  out->seed = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--bench") {
      out->bench = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (flag == "--backend") {
      out->backend = value;
    } else if (flag == "--only") {
      out->only = value;
    } else if (flag == "--seed") {
      out->seed = strtoull(value, nullptr, 10);
    } else if (flag == "--threads") {
      out->threads = atoi(value);
    } else {
      return false;
    }
  }
  return true;
}

const mb_backend* find_backend(const std::string& path) {
  if (path.empty()) return mb_cpu_backend();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    printf("cannot load %s: %s\n", path.c_str(), dlerror());
    return nullptr;
  }
  const auto entry = reinterpret_cast<mb_backend_entry_fn>(dlsym(library, "mb_backend_entry"));
  const mb_backend* backend = entry == nullptr ? nullptr : entry(MB_ABI);
  if (backend == nullptr) printf("%s has no backend for ABI %d\n", path.c_str(), MB_ABI);
  return backend;
}

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (const auto* cases :
       {&gemm_cases, &norm_cases, &rope_cases, &attention_cases, &elementwise_cases, &embed_cases, &loss_cases,
        &decode_cases, &distill_cases, &optimizer_cases, &fp8_cases, &fp8_product_cases, &device_cases, &error_cases}) {
    all.insert(all.end(), cases->begin(), cases->end());
  }
  return all;
}

// Runs the cases that match; returns how many there were.
int run_all(Context& context, const std::string& only) {
  int count = 0;
  for (const Case& c : all_cases()) {
    for (const int act : {MB_F32, MB_BF16}) {
      if (act == MB_BF16 && (!c.typed || !context.cuda())) continue;
      const std::string name = std::string(c.name) + (c.typed ? act == MB_F32 ? " f32" : " bf16" : "");
      if (name.find(only) == std::string::npos) continue;
      context.begin(name);
      c.run(context, act);
      ++count;
    }
  }
  return count;
}

}  // namespace
}  // namespace mb::test

int main(int argc, char** argv) {
  using namespace mb::test;
  Options options;
  if (!parse(argc, argv, &options)) {
    printf("usage: %s [--backend FILE.so] [--seed N] [--only TEXT] [--threads N] [--bench]\n", argv[0]);
    return 2;
  }
  const mb_backend* backend = find_backend(options.backend);
  if (backend == nullptr) return 4;
  const bool cuda = strcmp(backend->name, "cuda") == 0;
  const int cores = options.threads > 0 ? options.threads : mb::usable_cores();
  // Thread counts of the runs that must agree.
  const std::vector<int> runs = options.bench ? std::vector<int>{cores}
                                : cuda        ? std::vector<int>{1, 1}
                                              : std::vector<int>{1, 2, 3};

  printf("backend %s, seed %llu\n", backend->name, static_cast<unsigned long long>(options.seed));
  int failures = 0;
  int checks = 0;
  int cases = 0;
  std::vector<uint64_t> first;
  for (size_t i = 0; i < runs.size(); ++i) {
    mb_device* device = nullptr;
    if (backend->open(0, runs[i], &device) != MB_OK) {
      printf("open: %s\n", backend->last_error());
      return 4;
    }
    Context context(backend, device, options.seed);
    if (options.bench) {
      for (const auto& [name, part] : {std::pair<std::string, void (*)(Context&)>{"ops", bench}, {"fp8", bench_fp8}}) {
        if (name.find(options.only) != std::string::npos) part(context);
      }
    } else {
      cases = run_all(context, options.only);
      if (i == 0) first = context.digests;
      context.begin("determinism");
      context.is(context.digests == first,
                 cuda ? "a second run gave other bits" : std::to_string(runs[i]) + " threads give other bits than 1");
    }
    failures += context.failures;
    checks += context.checks;
    backend->close(device);
  }
  if (options.bench) return 0;
  if (cases == 0) printf("no case matches %s\n", options.only.c_str());
  printf("%d cases, %d checks, %d failed\n", cases, checks, failures);
  return failures == 0 && cases > 0 ? 0 : 1;
}
