// The part of ONNX Runtime's C ABI that we use, declared by ourselves: places in its table of functions never change.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtStatus;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;

// OrtApi: a table of function pointers, called through `Ort` below.
struct OrtApi {
  void (*place[1])();
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, void*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};

}  // extern "C"

namespace onnxfuse {
namespace ort {

constexpr uint32_t kVersion = 23;  // of the API

// ONNXTensorElementDataType
constexpr int kUndefined = 0, kFloat = 1, kInt8 = 3, kInt64 = 7, kBFloat16 = 16;
// OrtCustomOpInputOutputCharacteristic
constexpr int kRequired = 0, kOptional = 1, kVariadic = 2;
// OrtErrorCode
constexpr int kFail = 1, kInvalidArgument = 2;

// The function at a place of the table; all that can fail return a status that the caller releases.
template <class Function>
Function* function(const OrtApi* api, size_t place) {
  return reinterpret_cast<Function*>(api->place[place]);
}

using CreateStatus = OrtStatus*(int code, const char*);
using GetErrorMessage = const char*(const OrtStatus*);
using CreateCustomOpDomain = OrtStatus*(const char*, OrtCustomOpDomain**);
using CustomOpDomainAdd = OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*);
using AddCustomOpDomain = OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*);
using GetTensorMutableData = OrtStatus*(OrtValue*, void**);
using GetTensorElementType = OrtStatus*(const OrtTensorTypeAndShapeInfo*, int*);
using GetDimensionsCount = OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t*);
using GetDimensions = OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t);
using GetTensorTypeAndShape = OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**);
using AttributeFloat = OrtStatus*(const OrtKernelInfo*, const char*, float*);
using AttributeInt64 = OrtStatus*(const OrtKernelInfo*, const char*, int64_t*);
using AttributeString = OrtStatus*(const OrtKernelInfo*, const char*, char*, size_t*);
using ContextInputCount = OrtStatus*(const OrtKernelContext*, size_t*);
using ContextInput = OrtStatus*(const OrtKernelContext*, size_t, const OrtValue**);
using ContextOutput = OrtStatus*(OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**);
using Release = void(void*);
using InfoInputCount = OrtStatus*(const OrtKernelInfo*, size_t*);
using InfoInputName = OrtStatus*(const OrtKernelInfo*, size_t, char*, size_t*);
using ConstantInput = OrtStatus*(const OrtKernelInfo*, size_t, int*, const OrtValue**);
using ParallelFor = OrtStatus*(const OrtKernelContext*, void (*)(void*, size_t), size_t total, size_t batches, void*);

// Their places.
constexpr size_t kCreateStatus = 0, kGetErrorMessage = 2, kCreateCustomOpDomain = 26, kCustomOpDomainAdd = 27,
                 kAddCustomOpDomain = 28, kGetTensorMutableData = 51, kGetTensorElementType = 60, kGetDimensionsCount = 61,
                 kGetDimensions = 62, kGetTensorTypeAndShape = 65, kAttributeFloat = 85, kAttributeInt64 = 86,
                 kAttributeString = 87, kContextInputCount = 88, kContextInput = 90, kContextOutput = 91, kReleaseStatus = 93,
                 kReleaseShapeInfo = 99, kInfoInputCount = 230, kInfoInputName = 232, kConstantInput = 249,
                 kParallelFor = 274;

}  // namespace ort
}  // namespace onnxfuse
