// What the library exports: ONNX Runtime's entry, and plain functions for Python.
#include <algorithm>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "errors.h"
#include "operators.h"
#include "ort_calls.h"
#include "selftest.h"

#define ONNXFUSE_EXPORT extern "C" __attribute__((visibility("default")))

namespace onnxfuse {
namespace {

// What keeps this library from being used: "" or a text. Found once a process.
const std::string& trouble() {
  static const std::string text = [] {
    const Kernels* set = kernels();
    return set ? selftest(*set) : std::string(kernels_error());
  }();
  return text;
}

// A status without the API that we need: CreateStatus stands first in the table of all versions.
OrtStatus* too_old(const OrtApiBase* base) {
  const std::string text = "onnxfuse: its operators need ONNX Runtime 1." + std::to_string(ort::kVersion) +
                           " or later; this is " + base->GetVersionString();
  for (uint32_t version = ort::kVersion; version > 0; --version)
    if (const OrtApi* api = base->GetApi(version)) return Api(api).status(ort::kFail, text);
  return nullptr;
}

// The domain of one ONNX Runtime in this process; several may be loaded. It lives as long as the process.
OrtCustomOpDomain* domain_of(const Api& api, const OrtApi* raw) {
  static std::mutex mutex;
  static std::vector<std::pair<const OrtApi*, OrtCustomOpDomain*>> domains;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& [known, domain] : domains)
    if (known == raw) return domain;
  OrtCustomOpDomain* domain = nullptr;
  api.check(api.at<ort::CreateCustomOpDomain>(ort::kCreateCustomOpDomain)(kDomain, &domain));
  for (const OrtCustomOp* op : operators()) api.check(api.at<ort::CustomOpDomainAdd>(ort::kCustomOpDomainAdd)(domain, op));
  domains.emplace_back(raw, domain);
  return domain;
}

}  // namespace
}  // namespace onnxfuse

ONNXFUSE_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace onnxfuse;
  const OrtApi* raw = base->GetApi(ort::kVersion);
  if (!raw) return too_old(base);
  const Api api(raw);
  try {
    if (!trouble().empty()) return api.status(ort::kFail, "onnxfuse: " + trouble());
    return api.at<ort::AddCustomOpDomain>(ort::kAddCustomOpDomain)(options, domain_of(api, raw));
  } catch (const std::exception& error) {
    return api.at<ort::CreateStatus>(ort::kCreateStatus)(ort::kFail, error.what());
  } catch (...) {
    return api.at<ort::CreateStatus>(ort::kCreateStatus)(ort::kFail, "onnxfuse: an unknown error");
  }
}

// The instruction set taken, or "" where there is none.
ONNXFUSE_EXPORT const char* onnxfuse_kernels() {
  const onnxfuse::Kernels* set = onnxfuse::kernels();
  return set ? set->name : "";
}

// "" or what is wrong with the set taken.
ONNXFUSE_EXPORT const char* onnxfuse_selftest() {
  try {
    return onnxfuse::trouble().c_str();
  } catch (...) {
    return "no memory left";
  }
}

// The sets that this build has and this CPU runs, the plainest first, with commas between.
ONNXFUSE_EXPORT const char* onnxfuse_instruction_sets() {
  try {
    static const std::string names = [] {
      const onnxfuse::Kernels* sets[onnxfuse::kSets];
      std::string all;
      const int count = onnxfuse::kernel_sets(sets);
      for (int i = 0; i < count; ++i) all += (i ? "," : "") + std::string(sets[i]->name);
      return all;
    }();
    return names.c_str();
  } catch (...) {
    return "";
  }
}
