#include "core/host.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

namespace mb {
namespace {

constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// The first whitespace-separated word of a file as a number; kNone when the file is missing or says "max" or -1.
int64_t read_limit(const std::string& path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word)) return kNone;
  char* end = nullptr;
  const long long value = strtoll(word.c_str(), &end, 10);
  return end == word.c_str() || value < 0 ? kNone : value;
}

// Folders that hold the limits of this process for a controller, from its own group up to the root: limits of every
// ancestor count. A container often sees its group as the root, so the root is always in the list.
std::vector<std::string> cgroup_folders(const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const bool v2 = second == first + 1;  // no controllers are named
    std::string name;
    std::istringstream names(line.substr(first + 1, second - first - 1));
    while (name != controller && std::getline(names, name, ',')) {
    }
    if (!v2 && name != controller) continue;
    std::string root = "/sys/fs/cgroup";
    if (!v2) root.append("/").append(controller);
    std::string path = line.substr(second + 1);
    while (path.size() > 1) {
      folders.push_back(root + path);
      path.erase(path.rfind('/'));
    }
    folders.push_back(root);
  }
  return folders;
}

double cpu_quota() {
  double quota = std::numeric_limits<double>::infinity();
  for (const std::string& folder : cgroup_folders("cpu")) {
    std::ifstream v2(folder + "/cpu.max");
    std::string limit;
    double period = 0;
    if (v2 >> limit >> period && limit != "max" && period > 0) quota = std::min(quota, atof(limit.c_str()) / period);
    const int64_t us = read_limit(folder + "/cpu.cfs_quota_us");
    const int64_t per = read_limit(folder + "/cpu.cfs_period_us");
    if (us != kNone && per != kNone && per > 0)
      quota = std::min(quota, static_cast<double>(us) / static_cast<double>(per));
  }
  return quota;
}

// A field of /proc/meminfo in bytes; 0 when absent.
int64_t meminfo(const char* field) {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kib = 0;
    if (words >> name >> kib && name == std::string(field) + ":") return kib * 1024;
  }
  return 0;
}

// Page cache that the kernel would drop before refusing memory; it counts as used in memory.current.
int64_t reclaimable(const std::string& folder) {
  std::ifstream in(folder + "/memory.stat");
  int64_t bytes = 0;
  std::string name;
  int64_t value = 0;
  while (in >> name >> value) {
    if (name == "inactive_file" || name == "active_file") bytes += value;
  }
  return bytes;
}

}  // namespace

int usable_cores() {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  // Machines with more than CPU_SETSIZE cores make sched_getaffinity fail with EINVAL; then all online cores count.
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  const double quota = cpu_quota();
  if (quota < static_cast<double>(cores)) cores = static_cast<long>(std::ceil(quota));
  return static_cast<int>(std::max(1L, cores));
}

HostMemory host_memory() {
  HostMemory memory{meminfo("MemTotal"), meminfo("MemAvailable")};
  for (const std::string& folder : cgroup_folders("memory")) {
    int64_t limit = read_limit(folder + "/memory.max");
    int64_t used = read_limit(folder + "/memory.current");
    if (limit == kNone) {
      limit = read_limit(folder + "/memory.limit_in_bytes");
      used = read_limit(folder + "/memory.usage_in_bytes");
    }
    if (limit == kNone || limit >= memory.total) continue;  // v1 says "no limit" with a huge number
    memory.total = limit;
    if (used != kNone) {
      const int64_t left = limit - std::max<int64_t>(0, used - reclaimable(folder));
      memory.available = std::min(memory.available, std::max<int64_t>(0, left));
    }
  }
  return memory;
}

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 < line.size()) return line.substr(colon + 2);
  }
  return "CPU";
}

}  // namespace mb
