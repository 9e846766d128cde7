#include "comm/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.h"

namespace mb::shm {
namespace {

using comm::group_text;

constexpr uint64_t kMagic = 0x3130'6d68'7362'6d00;
constexpr int64_t kPage = 4096;
// Where rank 0 could not allocate its file, it gives it the size of errno, which no segment has: the others say why.
constexpr off_t kLastErrno = 4095;

struct Id {
  uint64_t magic;
  ProcessId creator;
  uint64_t pid_namespace;
  uint64_t device, inode;  // of the file, to recognise a descriptor number that was reused
  int32_t fd;
  int32_t named;  // 1: in /dev/shm, 0: a memfd
  uint8_t token[16];
};
static_assert(sizeof(Id) <= 128);

Id read_id(const uint8_t bytes[128]) {
  Id id;
  memcpy(&id, bytes, sizeof id);
  return id;
}

int64_t ring_bytes_for(int size) {
  int64_t bytes = kRingsBytes;
  while (bytes > kMinRingBytes && bytes * (size - 1) > kRingsBytes) bytes /= 2;
  return bytes;
}

struct Layout {
  int64_t slots, channels, rings, end;
};

Layout layout(int size) {
  auto round = [](int64_t x) { return (x + kPage - 1) / kPage * kPage; };
  const int64_t pairs = int64_t{size} * (size - 1);
  Layout at;
  at.slots = round(sizeof(Header));
  at.channels = at.slots + (size > 1 ? size * 2 * kChunkBytes : 0);
  at.rings = at.channels + round(pairs * static_cast<int64_t>(sizeof(Channel)));
  at.end = at.rings + pairs * ring_bytes_for(size);
  return at;
}

int no_memory(const Joining& who, int error) {
  const std::string group = group_text(who.name, who.ranks, who.size);
  const auto needed = static_cast<long long>(Segment::bytes(who.size));
  const char* reason = strerror(error);
  struct statvfs fs;
  // Other errors are limits of the process (ulimit), whatever /dev/shm has.
  if (error == ENOSPC && read_id(who.id).named && statvfs("/dev/shm", &fs) == 0) {
    const auto free = static_cast<long long>(fs.f_bavail) * static_cast<long long>(fs.f_frsize);
    const auto total = static_cast<long long>(fs.f_blocks) * static_cast<long long>(fs.f_frsize);
    return fail(
        MB_ERR_MEMORY,
        "shared memory of %s: %lld bytes are needed in /dev/shm, which has %lld of %lld available (%s); enlarge "
        "it (docker run --shm-size, or mount -o remount,size=... /dev/shm)",
        group.c_str(), needed, free, total, reason);
  }
  return fail(MB_ERR_MEMORY, "shared memory of %s: %lld bytes are needed (%s)", group.c_str(), needed, reason);
}

void sleep_ns(long ns) {
  timespec t{0, ns};
  nanosleep(&t, nullptr);
}

}  // namespace

int make_id(uint8_t bytes[128]) {
  Id id{};
  id.magic = kMagic;
  id.creator = this_process();
  id.pid_namespace = pid_namespace();
  id.named = 1;
  // O_EXCL: can never be given a name. Where /dev/shm is missing or its file system has no O_TMPFILE, memory without a
  // file system serves as well.
  id.fd = open("/dev/shm", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (id.fd < 0 && errno != EMFILE && errno != ENFILE) {
    id.named = 0;
    id.fd = memfd_create("mbridge", MFD_CLOEXEC);
  }
  struct stat info;
  if (id.fd < 0 || fstat(id.fd, &info) != 0 || getrandom(id.token, sizeof id.token, 0) != sizeof id.token) {
    const int error = errno;
    if (id.fd >= 0) close(id.fd);
    return fail(MB_ERR_MEMORY, "cannot open shared memory in /dev/shm: %s", strerror(error));
  }
  id.device = info.st_dev;
  id.inode = info.st_ino;
  memset(bytes, 0, 128);
  memcpy(bytes, &id, sizeof id);
  return MB_OK;
}

void release_id(const uint8_t bytes[128]) {
  const Id id = read_id(bytes);
  struct stat info;
  if (id.magic != kMagic || id.creator.pid != getpid() || fstat(id.fd, &info) != 0) return;
  if (info.st_dev == id.device && info.st_ino == id.inode) close(id.fd);
}

int64_t Segment::bytes(int size) { return layout(size).end; }

int Segment::map(const Joining& who) {
  const Id id = read_id(who.id);
  const std::string group = group_text(who.name, who.ranks, who.size);
  if (id.magic != kMagic) return fail(MB_ERR_ARGUMENT, "the id of %s was not made by this backend", group.c_str());
  if (who.size == 1) {
    const int error = map_file(-1, who);  // private memory
    return error == 0 ? MB_OK : no_memory(who, error);
  }
  const int creator = who.ranks[0];
  if (id.pid_namespace != pid_namespace()) {
    return fail(MB_ERR_UNSUPPORTED,
                "%s: rank %d is in another PID namespace (another container); ranks that share memory must be in one",
                group.c_str(), creator);
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", id.creator.pid, id.fd);
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  struct stat info;
  const int error = fd < 0 ? errno : 0;
  // By now the number may be that of another file, one that cannot be opened.
  const bool gone = stat(path, &info) == 0 ? info.st_dev != id.device || info.st_ino != id.inode : errno == ENOENT;
  if (!gone && (error == EACCES || error == EPERM)) {
    return fail(MB_ERR_UNSUPPORTED,
                "%s: cannot open %s, the shared memory of rank %d: %s; all ranks must run as one user", group.c_str(),
                path, creator, strerror(error));
  }
  if (error == EMFILE || error == ENFILE) {
    return fail(MB_ERR_MEMORY, "%s: cannot open %s, the shared memory of rank %d: %s", group.c_str(), path, creator,
                strerror(error));
  }
  if (fd < 0 || fstat(fd, &info) != 0 || info.st_dev != id.device || info.st_ino != id.inode) {
    if (fd >= 0) close(fd);
    if (!process_alive(id.creator)) {
      return fail(MB_ERR_PEER, "rank %d died (pid %d; %s, in create)", creator, id.creator.pid, group.c_str());
    }
    return fail(MB_ERR_PEER, "rank %d gave up making %s, or this id was used before", creator, group.c_str());
  }
  const int status = who.rank == 0 ? make(fd, who) : await(fd, who);
  close(fd);
  return status;
}

int Segment::map_file(int fd, const Joining& who) {
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  const Layout at = layout(who.size);
  void* base = mmap(nullptr, at.end, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (base == MAP_FAILED) return errno;
  size_ = who.size;
  header = static_cast<Header*>(base);
  slots_ = static_cast<char*>(base) + at.slots;
  channels_ = reinterpret_cast<Channel*>(static_cast<char*>(base) + at.channels);
  rings_ = static_cast<char*>(base) + at.rings;
  ring_bytes_ = ring_bytes_for(who.size);
  return 0;
}

// Rank 0. Mapping comes before allocating, because afterwards others may have mapped it and nothing may fail.
int Segment::make(int fd, const Joining& who) {
  const int64_t bytes = Segment::bytes(who.size);
  int error = map_file(fd, who);
  // Every page now: a full /dev/shm would otherwise be a SIGBUS later.
  if (error == 0) {
    do error = fallocate(fd, 0, 0, bytes) == 0 ? 0 : errno;
    while (error == EINTR);
  }
  if (error != 0) {
    unmap();
    (void)!ftruncate(fd, error);
    return no_memory(who, error);
  }
  header->size = who.size;
  header->bytes = bytes;
  memcpy(header->token, read_id(who.id).token, sizeof header->token);
  snprintf(header->name, sizeof header->name, "%s", who.name);
  std::copy_n(who.ranks, who.size, header->ranks);
  header->ready.store(1, std::memory_order_release);
  return MB_OK;
}

// The others. Fails when rank 0 dies, cannot allocate, or describes another group.
int Segment::await(int fd, const Joining& who) {
  const Id id = read_id(who.id);
  const std::string group = group_text(who.name, who.ranks, who.size);
  const int64_t start = now_ns();
  int64_t checked = start;
  while (true) {
    struct stat info;
    if (fstat(fd, &info) != 0) return fail(MB_ERR_DEVICE, "%s: fstat: %s", group.c_str(), strerror(errno));
    if (info.st_size > 0 && info.st_size <= kLastErrno) return no_memory(who, static_cast<int>(info.st_size));
    // A segment of another group size is mapped as well, to read the header and to tell the others.
    if (info.st_size > kLastErrno && !header) {
      const int error = map_file(fd, who);
      if (error != 0) return no_memory(who, error);
    }
    if (header && header->ready.load(std::memory_order_acquire)) break;
    const int64_t now = now_ns();
    if (now - checked > 10'000'000) {
      checked = now;
      if (!process_alive(id.creator)) {
        unmap();
        return fail(MB_ERR_PEER, "rank %d died (pid %d; %s, in create)", who.ranks[0], id.creator.pid, group.c_str());
      }
      if (who.ended()) {
        unmap();
        return fail(MB_ERR_PEER, "%s: the thread that joins has ended", group.c_str());
      }
      if (now - start > who.timeout_ns) {
        unmap();
        return fail(MB_ERR_TIMEOUT, "%s: create timed out after %.1f s: rank %d has not arrived", group.c_str(),
                    static_cast<double>(now - start) * 1e-9, who.ranks[0]);
      }
    }
    sleep_ns(now - start < 5'000'000 ? 50'000 : 1'000'000);
  }
  if (memcmp(header->token, id.token, sizeof id.token) != 0) {
    unmap();
    return fail(MB_ERR_ARGUMENT, "%s: the id does not belong to the segment it names", group.c_str());
  }
  char name[sizeof header->name];
  snprintf(name, sizeof name, "%s", who.name);
  if (header->size != who.size || strcmp(name, header->name) != 0 ||
      !std::equal(who.ranks, who.ranks + who.size, header->ranks)) {
    return fail(MB_ERR_ARGUMENT, "rank %d joins %s, but rank %d made %s", who.ranks[who.rank], group.c_str(),
                who.ranks[0], group_text(header->name, header->ranks, header->size).c_str());
  }
  return MB_OK;
}

int Segment::enter(const Joining& who) {
  Member& me = member(who.rank);
  uint32_t expected = kAbsent;
  if (!me.state.compare_exchange_strong(expected, kAttaching)) {
    return fail(MB_ERR_ARGUMENT, "two processes joined %s as rank %d",
                group_text(who.name, who.ranks, who.size).c_str(), who.ranks[who.rank]);
  }
  me.process = this_process();
  me.state.store(kPresent, std::memory_order_release);
  header->attached.word.fetch_add(1);
  wake(header->attached);
  return MB_OK;
}

void Segment::unmap() {
  if (header) munmap(header, bytes(size_));
  header = nullptr;
}

}  // namespace mb::shm

int64_t mb_shm_segment_bytes(int size) { return size > 1 ? mb::shm::Segment::bytes(size) : 0; }
