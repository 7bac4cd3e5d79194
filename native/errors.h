// What goes wrong, as texts that users read: what was seen and what is wanted.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

namespace onnxfuse {

// Caught where ONNX Runtime calls us, and made a status.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Axes as "[2, 16, 768]".
inline std::string text(const std::vector<int64_t>& shape) {
  std::string all = "[";
  for (size_t i = 0; i < shape.size(); ++i) all += (i ? ", " : "") + std::to_string(shape[i]);
  return all + "]";
}

}  // namespace onnxfuse
