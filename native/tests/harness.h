// What the op tests share: tensors on a backend with a float64 view, a seeded generator, and checks that count
// failures.
//
// A test sees only the mb_backend table, so the same tests run on the CPU and on CUDA.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/abi.h"

namespace mb::test {

using Values = std::vector<double>;

// splitmix64: small, and the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  double uniform(double low, double high);
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  Values uniforms(int64_t n, double low = -1, double high = 1);

 private:
  uint64_t state_;
};

class Tensor;

// One run of the tests on one opened device.
class Context {
 public:
  Context(const mb_backend* backend, mb_device* opened, uint64_t seed)
      : table(backend), device(opened), random(seed), seed_(seed) {}

  const mb_backend* const table;
  mb_device* const device;
  Random random;

  bool cuda() const { return std::string(table->name) == "cuda"; }

  // Starts a case: names it in failures, and makes its random inputs independent of which cases ran before.
  void begin(const std::string& name);

  // Runs an op that must succeed.
  void run(int op, const std::vector<const Tensor*>& tensors, const std::vector<double>& scalars);
  // The same on parts of tensors.
  void run_on(int op, const std::vector<mb_buf>& tensors, const std::vector<double>& scalars);
  // Runs an op that must fail with `status` and a text that contains `text`.
  void refuses(int op, const std::vector<mb_buf>& tensors, const std::vector<double>& scalars, int status,
               const std::string& text);

  // ||found - expected|| / ||expected|| <= tolerance, and every element finite. Where the values may cancel, `floor` is
  // the size of an element below which the error counts as absolute.
  void close(const std::string& what, const Values& found, const Values& expected, double tolerance, double floor = 0);
  void equal(const std::string& what, const Values& found, const Values& expected);
  void is(bool holds, const std::string& what);

  // Adds to what must not depend on the number of threads.
  void digest(const void* bytes, int64_t count);

  int checks = 0;
  int failures = 0;
  std::vector<uint64_t> digests;  // one for every tensor that was read

 private:
  void fail(const std::string& text);

  uint64_t seed_;
  std::string case_;
};

// Memory of the device between two guard zones. It starts poisoned with 0xff bytes (NaN as a float), so that an element
// that an op did not write is noticed; the destructor checks the guards.
class Tensor {
 public:
  Tensor(Context& context, int64_t n, int dtype);
  Tensor(Context& context, const Values& values, int dtype);  // rounded to dtype
  ~Tensor();
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  void write(const Values& values);
  Values read() const;
  // What the values became when they were written: the input of a reference.
  const Values& values() const { return values_; }
  mb_buf buf() const { return {data_, bytes_, dtype_, 0}; }
  mb_buf part(int64_t first, int64_t n) const;

 private:
  Context& context_;
  int64_t n_;
  int dtype_;
  int64_t bytes_;
  char* base_ = nullptr;
  char* data_ = nullptr;
  Values values_;
};

// Rounds every value to dtype.
Values rounded(const Values& values, int dtype);

// The bar for an op's outputs: float32 sums of k terms, or bf16 activations.
double tolerance(int act, int64_t k = 1);

struct Case {
  const char* name;
  void (*run)(Context&, int act);  // act: MB_F32, or MB_BF16 where the backend has it
  bool typed;                      // runs for every act dtype; otherwise once, with MB_F32
};

// Of each file.
extern const std::vector<Case> gemm_cases, norm_cases, rope_cases, attention_cases, elementwise_cases, embed_cases,
    loss_cases, decode_cases, distill_cases, optimizer_cases, fp8_cases, fp8_product_cases, device_cases, error_cases;

// Prints the speed of gemm and of the ops at the sizes of a small model; on a GPU that of FP8.
void bench(Context& context);
void bench_fp8(Context& context);

// Milliseconds of the fastest of up to 30 calls (0.2 s): other processes only ever add to a time.
double best_ms(Context& context, const std::function<void()>& call);

}  // namespace mb::test
