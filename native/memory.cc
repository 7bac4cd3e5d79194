#include "memory.h"

#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace onnxfuse {
namespace {

constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kCallKept = size_t{1} << 28;    // bytes of a call's buffer that are kept for the next, at most
constexpr size_t kThreadKept = size_t{1} << 22;  // bytes of a thread's scratch, likewise

}  // namespace

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  std::free(data_);
  data_ = other.data_, bytes_ = other.bytes_;
  other.data_ = nullptr, other.bytes_ = 0;
  return *this;
}

Buffer::~Buffer() { std::free(data_); }

void Buffer::grow(size_t bytes) {
  if (bytes <= bytes_) return;
  std::free(data_);
  data_ = nullptr, bytes_ = 0;
  const size_t step = bytes >= kHugePage ? kHugePage : kAlignment;
  const size_t whole = (bytes + step - 1) / step * step;
  if (whole < bytes) throw std::bad_alloc();
  data_ = std::aligned_alloc(step, whole);
  if (!data_) throw std::bad_alloc();
  bytes_ = whole;
#if defined(__linux__)
  if (step == kHugePage) madvise(data_, whole, MADV_HUGEPAGE);
#endif
}

Buffer Buffers::take(size_t bytes) {
  Buffer buffer;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      buffer = std::move(free_.back());
      free_.pop_back();
    }
  }
  buffer.grow(bytes);
  return buffer;
}

void Buffers::give(Buffer&& buffer) {
  if (buffer.bytes() > kCallKept) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  try {
    free_.push_back(std::move(buffer));
  } catch (const std::bad_alloc&) {
    // the buffer is freed instead of kept
  }
}

void* thread_scratch(size_t bytes) noexcept {
  thread_local Buffer kept;
  try {
    if (kept.bytes() > kThreadKept && bytes <= kThreadKept) kept = Buffer();
    kept.grow(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return kept.data();
}

}  // namespace onnxfuse
