// Memory in whole cache lines: of weights, of one call's activations, of one thread's scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace onnxfuse {

constexpr size_t kAlignment = 64;

// Bytes that grow and are never copied. Large ones ask for huge pages.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes) { grow(bytes); }
  Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr, other.bytes_ = 0; }
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();
  // At least so many bytes; what was in them is lost if they must grow. Throws std::bad_alloc.
  void grow(size_t bytes);
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Buffers that calls of one operator borrow, one each: as many as calls ran at once, as large as the largest call, but for very
// large ones, which are not kept.
class Buffers {
 public:
  Buffer take(size_t bytes);
  void give(Buffer&& buffer);

 private:
  std::mutex mutex_;
  std::vector<Buffer> free_;
};

// A buffer borrowed for a scope, handed out piece by piece.
class Arena {
 public:
  Arena(Buffers& buffers, size_t bytes) : buffers_(buffers), buffer_(buffers.take(bytes)) {}
  ~Arena() { buffers_.give(static_cast<Buffer&&>(buffer_)); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  template <class T>
  T* next(size_t count) {
    T* at = reinterpret_cast<T*>(static_cast<char*>(buffer_.data()) + used_);
    used_ += rounded(count * sizeof(T));
    return at;
  }
  static size_t rounded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

 private:
  Buffers& buffers_;
  Buffer buffer_;
  size_t used_ = 0;
};

// This thread's scratch, kept for its next task if it is small. Null where there is no memory.
void* thread_scratch(size_t bytes) noexcept;

}  // namespace onnxfuse
