// Handles of JavaScript: small integers that are never used again, so that a stale one is always noticed.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace mb::node {

template <class T>
class Handles {
 public:
  int64_t add(std::shared_ptr<T> item) {
    items_.emplace(next_, std::move(item));
    return next_++;
  }

  // Null when the handle was never given out, or removed.
  const std::shared_ptr<T>& find(double handle) const {
    static const std::shared_ptr<T> none;
    if (!(handle >= 0 && handle < static_cast<double>(next_))) return none;
    const auto found = items_.find(static_cast<int64_t>(handle));
    return found == items_.end() ? none : found->second;
  }

  void remove(double handle) { items_.erase(static_cast<int64_t>(handle)); }

  template <class Condition>
  void remove_if(const Condition& condition) {
    std::erase_if(items_, [&](const auto& item) { return condition(*item.second); });
  }

  template <class Call>
  void for_each(const Call& call) const {
    for (const auto& item : items_) call(*item.second);
  }

  void clear() { items_.clear(); }

  size_t count() const { return items_.size(); }

 private:
  std::unordered_map<int64_t, std::shared_ptr<T>> items_;
  int64_t next_ = 0;
};

}  // namespace mb::node
