// Threads, as layers see them: ONNX Runtime's where it runs us, a test's own elsewhere.
#pragma once

#include <cstddef>

namespace onnxfuse {

class Pool {
 public:
  virtual ~Pool() = default;
  // task(state, i) for each i < count, on any threads in any order; returns when all are done. Tasks throw nothing.
  virtual void run(size_t count, void (*task)(void* state, size_t i), void* state) = 0;
  // How many threads there may be; decides how finely work is cut, not what comes out.
  virtual size_t threads() const = 0;

  // The same with a callable; one task alone runs here.
  template <class Task>
  void each(size_t count, Task&& task) {
    if (count == 1) return task(size_t{0});
    if (count) run(count, [](void* state, size_t i) { (*static_cast<Task*>(state))(i); }, &task);
  }
};

}  // namespace onnxfuse
