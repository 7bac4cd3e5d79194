// ONNX Runtime's calls as C++: what fails throws Error, what is released releases itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ort.h"
#include "pool.h"
#include "weights.h"

namespace onnxfuse {

class Api {
 public:
  explicit Api(const OrtApi* api) : api_(api) {}
  template <class Function>
  Function* at(size_t place) const {
    return ort::function<Function>(api_, place);
  }
  OrtStatus* status(int code, const std::string& text) const;
  // Throws what a status says, if it says anything.
  void check(OrtStatus* status) const;
  // The text of a status, which is released; empty without one.
  std::string text_of(OrtStatus* status) const;
  Tensor tensor(const OrtValue* value) const;

 private:
  const OrtApi* api_;
};

// A node as it is when a session opens.
class Info {
 public:
  Info(const Api& api, const OrtKernelInfo* info) : api_(api), info_(info) {}
  size_t inputs() const;
  bool has(size_t input) const;
  // A constant input, or nothing where it is missing or without elements: ONNX Runtime lets no variadic input be missing, so
  // that an empty initializer stands for one. where: as place() gives it.
  std::optional<Tensor> constant(size_t input, const std::string& where) const;
  float attribute(const char* name, float missing) const;
  int64_t attribute(const char* name, int64_t missing) const;
  std::string attribute(const char* name, const std::string& missing) const;

 private:
  bool found(OrtStatus* status) const;

  const Api& api_;
  const OrtKernelInfo* info_;
};

// One call of an operator.
class Context {
 public:
  Context(const Api& api, OrtKernelContext* context) : api_(api), context_(context) {}
  std::optional<Tensor> input(size_t index) const;
  float* output(const std::vector<int64_t>& shape) const;
  const OrtKernelContext* raw() const { return context_; }

 private:
  const Api& api_;
  OrtKernelContext* context_;
};

// The session's threads.
class SessionPool : public Pool {
 public:
  SessionPool(const Api& api, const OrtKernelContext* context) : api_(api), context_(context) {}
  void run(size_t count, void (*task)(void* state, size_t i), void* state) override;
  size_t threads() const override;

 private:
  const Api& api_;
  const OrtKernelContext* context_;
};

}  // namespace onnxfuse
