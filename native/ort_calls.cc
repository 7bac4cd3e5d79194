#include "ort_calls.h"

#include <algorithm>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "errors.h"

namespace onnxfuse {
namespace {

// CPUs that this process may use.
size_t cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<size_t>(std::max(1, CPU_COUNT(&set)));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

OrtStatus* Api::status(int code, const std::string& text) const {
  return at<ort::CreateStatus>(ort::kCreateStatus)(code, text.c_str());
}

std::string Api::text_of(OrtStatus* status) const {
  if (!status) return "";
  const std::string text = at<ort::GetErrorMessage>(ort::kGetErrorMessage)(status);
  at<ort::Release>(ort::kReleaseStatus)(status);
  return text.empty() ? "an error without a text" : text;
}

void Api::check(OrtStatus* status) const {
  const std::string text = text_of(status);
  if (!text.empty()) throw Error(text);
}

Tensor Api::tensor(const OrtValue* value) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(at<ort::GetTensorTypeAndShape>(ort::kGetTensorTypeAndShape)(value, &info));
  Tensor tensor{0, {}, nullptr};
  size_t rank = 0;
  std::string wrong = text_of(at<ort::GetTensorElementType>(ort::kGetTensorElementType)(info, &tensor.type));
  if (wrong.empty()) wrong = text_of(at<ort::GetDimensionsCount>(ort::kGetDimensionsCount)(info, &rank));
  tensor.shape.resize(rank);
  if (wrong.empty()) wrong = text_of(at<ort::GetDimensions>(ort::kGetDimensions)(info, tensor.shape.data(), rank));
  at<ort::Release>(ort::kReleaseShapeInfo)(info);
  if (!wrong.empty()) throw Error(wrong);
  void* data = nullptr;
  check(at<ort::GetTensorMutableData>(ort::kGetTensorMutableData)(const_cast<OrtValue*>(value), &data));
  tensor.data = data;
  return tensor;
}

size_t Info::inputs() const {
  size_t count = 0;
  api_.check(api_.at<ort::InfoInputCount>(ort::kInfoInputCount)(info_, &count));
  return count;
}

bool Info::has(size_t input) const {
  if (input >= inputs()) return false;
  size_t size = 0;  // of the name, with its end
  api_.check(api_.at<ort::InfoInputName>(ort::kInfoInputName)(info_, input, nullptr, &size));
  return size > 1;
}

std::optional<Tensor> Info::constant(size_t input, const std::string& where) const {
  if (!has(input)) return std::nullopt;
  int constant = 0;
  const OrtValue* value = nullptr;
  api_.check(api_.at<ort::ConstantInput>(ort::kConstantInput)(info_, input, &constant, &value));
  if (!constant || !value) throw Error(where + " is computed in the graph; an initializer is wanted");
  const Tensor tensor = api_.tensor(value);
  if (tensor.count() == 0) return std::nullopt;
  return tensor;
}

// Whether an attribute is there; another type than wanted is an error.
bool Info::found(OrtStatus* status) const {
  if (!status) return true;
  const std::string text = api_.text_of(status);
  if (text.find("No attribute") != std::string::npos || text.find("not found") != std::string::npos) return false;
  throw Error(text);
}

float Info::attribute(const char* name, float missing) const {
  float value = 0;
  return found(api_.at<ort::AttributeFloat>(ort::kAttributeFloat)(info_, name, &value)) ? value : missing;
}

int64_t Info::attribute(const char* name, int64_t missing) const {
  int64_t value = 0;
  return found(api_.at<ort::AttributeInt64>(ort::kAttributeInt64)(info_, name, &value)) ? value : missing;
}

std::string Info::attribute(const char* name, const std::string& missing) const {
  const auto get = api_.at<ort::AttributeString>(ort::kAttributeString);
  size_t size = 0;
  if (!found(get(info_, name, nullptr, &size))) return missing;
  std::string value(size, '\0');
  api_.check(get(info_, name, value.data(), &size));
  value.resize(size ? size - 1 : 0);
  return value;
}

std::optional<Tensor> Context::input(size_t index) const {
  size_t count = 0;
  api_.check(api_.at<ort::ContextInputCount>(ort::kContextInputCount)(context_, &count));
  if (index >= count) return std::nullopt;
  const OrtValue* value = nullptr;
  api_.check(api_.at<ort::ContextInput>(ort::kContextInput)(context_, index, &value));
  if (!value) return std::nullopt;
  return api_.tensor(value);
}

float* Context::output(const std::vector<int64_t>& shape) const {
  OrtValue* value = nullptr;
  api_.check(api_.at<ort::ContextOutput>(ort::kContextOutput)(context_, 0, shape.data(), shape.size(), &value));
  void* data = nullptr;
  api_.check(api_.at<ort::GetTensorMutableData>(ort::kGetTensorMutableData)(value, &data));
  return static_cast<float*>(data);
}

void SessionPool::run(size_t count, void (*task)(void* state, size_t i), void* state) {
  api_.check(api_.at<ort::ParallelFor>(ort::kParallelFor)(context_, task, count, 0, state));
}

size_t SessionPool::threads() const {
  static const size_t count = std::min<size_t>(cpus(), 64);
  return count;
}

}  // namespace onnxfuse
