#include "cuda/device/staging.h"

#include <string.h>

#include <algorithm>

#include "cuda/device/error.h"

namespace mb::cuda {
namespace {

constexpr size_t kRingBytes = 32 << 20;
constexpr size_t kPiece = 8 << 20;  // large transfers go in pieces: filling one overlaps sending the other
constexpr size_t kAlign = 256;
constexpr size_t kMaxSegments = 1024;

}  // namespace

StagingRing::~StagingRing() {
  for (const Segment& segment : live_) cudaEventDestroy(segment.sent);
  for (cudaEvent_t event : idle_) cudaEventDestroy(event);
  if (base_) cudaFreeHost(base_);
}

int StagingRing::retire_oldest() {
  MB_TRY(waiter_->for_event(live_.front().sent, "write to the device"));
  idle_.push_back(live_.front().sent);
  live_.pop_front();
  return MB_OK;
}

// A contiguous run of the ring. Live segments occupy [tail, head) or, once wrapped, [tail, end) and [0, head); head
// never reaches tail from behind, so that head == tail means empty.
int StagingRing::reserve(size_t bytes, size_t* begin) {
  if (live_.size() >= kMaxSegments) MB_TRY(retire_oldest());
  for (;;) {
    if (live_.empty()) head_ = 0;
    const size_t tail = live_.empty() ? 0 : live_.front().begin;
    const bool wrapped = !live_.empty() && head_ <= tail;
    const size_t limit = wrapped ? tail : kRingBytes;
    if (head_ + bytes < limit || (!wrapped && head_ + bytes == limit)) break;
    if (!wrapped && bytes < tail) {
      head_ = 0;
      break;
    }
    MB_TRY(retire_oldest());
  }
  *begin = head_;
  return MB_OK;
}

int StagingRing::write(cudaStream_t stream, void* dst, const void* src, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!base_) MB_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&base_), kRingBytes, cudaHostAllocDefault));
  for (size_t done = 0; done < bytes;) {
    const size_t piece = std::min(kPiece, bytes - done);
    size_t begin = 0;
    MB_TRY(reserve((piece + kAlign - 1) / kAlign * kAlign, &begin));
    cudaEvent_t sent = nullptr;
    if (idle_.empty()) {
      MB_CUDA(cudaEventCreateWithFlags(&sent, cudaEventDisableTiming));
    } else {
      sent = idle_.back();
      idle_.pop_back();
    }
    memcpy(base_ + begin, static_cast<const char*>(src) + done, piece);
    cudaError_t error =
        cudaMemcpyAsync(static_cast<char*>(dst) + done, base_ + begin, piece, cudaMemcpyDefault, stream);
    if (error == cudaSuccess) error = cudaEventRecord(sent, stream);
    if (error != cudaSuccess) {
      idle_.push_back(sent);
      return cuda_fail(error, "write to the device");
    }
    head_ = begin + (piece + kAlign - 1) / kAlign * kAlign;
    live_.push_back({begin, head_, sent});
    done += piece;
  }
  return MB_OK;
}

ReadBuffers::~ReadBuffers() {
  for (cudaEvent_t event : filled_) {
    if (event) cudaEventDestroy(event);
  }
  if (base_) cudaFreeHost(base_);
}

int ReadBuffers::read(cudaStream_t stream, void* dst, const void* src, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!base_) {
    for (cudaEvent_t& event : filled_) {
      if (!event) MB_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }
    MB_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&base_), 2 * kPiece, cudaHostAllocDefault));
  }
  const size_t pieces = (bytes + kPiece - 1) / kPiece;
  for (size_t i = 0; i <= pieces; i++) {
    if (i < pieces) {
      const size_t offset = i * kPiece;
      MB_CUDA(cudaMemcpyAsync(base_ + i % 2 * kPiece, static_cast<const char*>(src) + offset,
                              std::min(kPiece, bytes - offset), cudaMemcpyDefault, stream));
      MB_CUDA(cudaEventRecord(filled_[i % 2], stream));
    }
    if (i > 0) {
      const size_t offset = (i - 1) * kPiece;
      MB_TRY(waiter_->for_event(filled_[(i - 1) % 2], "read from the device"));
      memcpy(static_cast<char*>(dst) + offset, base_ + (i - 1) % 2 * kPiece, std::min(kPiece, bytes - offset));
    }
  }
  return MB_OK;
}

}  // namespace mb::cuda
