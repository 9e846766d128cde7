// A list of ids that grows at its end. Unlike a vector it gives room for several at once, which need not all be used:
// this is what the encoder does for every word.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace mb::tokenizer {

class Ids {
 public:
  // Where the next `count` ids go; `add` says how many went there.
  int32_t* room(size_t count) {
    if (capacity_ - size_ < count) grow(count);
    return data_.get() + size_;
  }
  void add(size_t count) { size_ += count; }
  void push(int32_t id) {
    *room(1) = id;
    ++size_;
  }

  const int32_t* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  void grow(size_t count) {
    const size_t larger = 2 * capacity_ + count + 64;
    auto* const moved = static_cast<int32_t*>(realloc(data_.get(), larger * sizeof(int32_t)));
    if (moved == nullptr) throw std::bad_alloc();
    (void)data_.release();
    data_.reset(moved);
    capacity_ = larger;
  }

  struct Free {
    void operator()(int32_t* data) const { free(data); }
  };
  std::unique_ptr<int32_t[], Free> data_;
  size_t size_ = 0, capacity_ = 0;
};

}  // namespace mb::tokenizer
