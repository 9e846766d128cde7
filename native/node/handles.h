// Handles of JavaScript: small integers that are never used again, so that a stale one is always noticed.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

namespace mb::node {

template <class T>
class Handles {
 public:
  int64_t add(std::shared_ptr<T> item) {
    items_.push_back(std::move(item));
    return static_cast<int64_t>(items_.size()) - 1;
  }

  // Null when the handle was never given out, or removed.
  const std::shared_ptr<T>& find(double handle) const {
    static const std::shared_ptr<T> none;
    const bool known = handle >= 0 && handle < static_cast<double>(items_.size());
    return known ? items_[static_cast<size_t>(handle)] : none;
  }

  void remove(double handle) { items_[static_cast<size_t>(handle)].reset(); }

  template <class Condition>
  void remove_if(const Condition& condition) {
    for (std::shared_ptr<T>& item : items_) {
      if (item && condition(*item)) item.reset();
    }
  }

 private:
  std::vector<std::shared_ptr<T>> items_;
};

}  // namespace mb::node
