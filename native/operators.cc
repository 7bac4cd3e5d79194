#include "operators.h"

#include <climits>
#include <cmath>
#include <memory>
#include <new>

#include "dispatch.h"
#include "encoder.h"
#include "errors.h"
#include "linear.h"
#include "ort_calls.h"
#include "sequences.h"

namespace onnxfuse {
namespace {

// "Linear, input 0 (x) has shape [2, 7]; "
std::string seen(const char* op, size_t index, const char* name, const Tensor& tensor) {
  return place(op, index, name) + " has shape " + text(tensor.shape) + "; ";
}

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

Activation activation_of(const Info& info, const char* op) {
  const std::string name = info.attribute("activation", std::string());
  if (name.empty()) return Activation::kNone;
  if (name == "Gelu") return Activation::kGelu;
  if (name == "GeluTanh") return Activation::kGeluTanh;
  throw Error(std::string(op) + ", attribute activation is " + quoted(name) + "; \"\", \"Gelu\" or \"GeluTanh\" is wanted");
}

Type precision_of(const Info& info, const char* op) {
  const std::string name = info.attribute("precision", std::string("float32"));
  if (name == "float32" || name.empty()) return Type::kFloat32;
  if (name == "bfloat16") return Type::kBFloat16;
  throw Error(std::string(op) + ", attribute precision is " + quoted(name) + "; \"float32\" or \"bfloat16\" is wanted");
}

int64_t heads_of(const Info& info, const char* op) {
  const int64_t heads = info.attribute("num_heads", int64_t{0});
  if (heads < 1) throw Error(std::string(op) + ", attribute num_heads is " + std::to_string(heads) + "; 1 or more is wanted");
  return heads;
}

float finite(const Info& info, const char* op, const char* name, float missing) {
  const float value = info.attribute(name, missing);
  if (std::isfinite(value) && value >= 0) return value;
  throw Error(std::string(op) + ", attribute " + name + " is " + std::to_string(value) + "; a finite number from 0 is wanted");
}

// The size of a head.
int64_t size_of(const std::string& where, int64_t D, int64_t heads) {
  if (D > 0 && D % heads == 0) return D / heads;
  throw Error(where + " has a last axis of " + std::to_string(D) + "; a multiple of num_heads, " + std::to_string(heads) +
              ", is wanted");
}

// Input `index` of a call, of float32 and at least rank 1.
Tensor floats(const Context& context, const char* op, size_t index, const char* name) {
  const std::optional<Tensor> tensor = context.input(index);
  const std::string where = place(op, index, name);
  if (!tensor) throw Error(where + " is missing");
  if (tensor->type != ort::kFloat) throw Error(where + " is not float32");
  if (tensor->shape.empty()) throw Error(where + " is a scalar; [..., " + (index == 0 ? "K" : "D") + "] is wanted");
  return *tensor;
}

int64_t tokens_of(const Tensor& x) {
  int64_t all = 1;
  for (size_t i = 0; i + 1 < x.shape.size(); ++i) all *= x.shape[i];
  return all;
}

const float* data(const Tensor& tensor) { return static_cast<const float*>(tensor.data); }

// bounds [B+1] of `tokens` tokens, checked.
std::vector<int64_t> checked_bounds(const Tensor& bounds, const std::string& where, int64_t tokens) {
  if (bounds.type != ort::kInt64) throw Error(where + " is not int64");
  if (bounds.shape.size() != 1 || bounds.shape[0] < 1)
    throw Error(where + " has shape " + text(bounds.shape) + "; [B+1] is wanted");
  const int64_t* values = static_cast<const int64_t*>(bounds.data);
  const std::vector<int64_t> all(values, values + bounds.shape[0]);
  if (all[0] != 0) throw Error(where + " begins with " + std::to_string(all[0]) + "; 0 is wanted");
  for (size_t b = 1; b < all.size(); ++b)
    if (all[b] < all[b - 1])
      throw Error(where + " falls from " + std::to_string(all[b - 1]) + " to " + std::to_string(all[b]) + " at " +
                  std::to_string(b) + "; values that do not fall are wanted");
  if (all.back() > tokens)
    throw Error(where + " ends with " + std::to_string(all.back()) + "; at most the number of tokens, " + std::to_string(tokens) +
                ", is wanted");
  return all;
}

// 0, step, 2 step, ... of `count` sequences.
std::vector<int64_t> even(int64_t count, int64_t step) {
  std::vector<int64_t> all(static_cast<size_t>(count) + 1);
  for (size_t b = 0; b < all.size(); ++b) all[b] = static_cast<int64_t>(b) * step;
  return all;
}

const float* bias_of(const std::optional<Tensor>& bias, const std::string& where, int64_t tokens) {
  if (!bias) return nullptr;
  if (bias->type != ort::kFloat) throw Error(where + " is not float32");
  if (bias->count() != tokens)
    throw Error(where + " has shape " + text(bias->shape) + "; as many elements as key tokens, " + std::to_string(tokens) +
                ", are wanted");
  return data(*bias);
}

// The constant inputs from `first`: weight, scale, rows, bias.
PackedWeight packed(const Info& info, const char* op, size_t first, const std::string& prefix, int64_t K, int64_t N) {
  const size_t indices[4] = {first, first + 1, first + 2, first + 3};
  static const char* const names[4] = {"weight", "scale", "rows", "bias"};
  std::optional<Tensor> found[4];
  for (size_t i = 0; i < 4; ++i) found[i] = info.constant(indices[i], place(op, indices[i], prefix + names[i]));
  const auto pointer = [](const std::optional<Tensor>& tensor) { return tensor ? &*tensor : nullptr; };
  return PackedWeight(*kernels(), op, indices, prefix,
                      {pointer(found[0]), pointer(found[1]), pointer(found[2]), pointer(found[3])}, K, N);
}

// gamma at input `first`, beta behind it.
Norm norm_of(const Info& info, const char* op, size_t first, const std::string& prefix, int64_t N) {
  const std::string at_gamma = place(op, first, prefix + "gamma"), at_beta = place(op, first + 1, prefix + "beta");
  const std::optional<Tensor> gamma = info.constant(first, at_gamma), beta = info.constant(first + 1, at_beta);
  if (beta && !gamma) throw Error(at_beta + " is there without " + prefix + "gamma");
  return {vector_of(gamma ? &*gamma : nullptr, at_gamma, N), vector_of(beta ? &*beta : nullptr, at_beta, N),
          finite(info, op, "epsilon", 1e-5f)};
}

class LinearKernel {
 public:
  static constexpr const char* kName = "Linear";
  static constexpr size_t kInputs = 8;
  static int type(size_t i) { return i == 1 ? ort::kUndefined : ort::kFloat; }
  static int characteristic(size_t i) { return i < 2 ? ort::kRequired : ort::kOptional; }

  explicit LinearKernel(const Info& info) {
    PackedWeight weight = packed(info, kName, 1, "", -1, -1);
    const int64_t N = weight.view().N;
    linear_ = std::make_unique<Linear>(*kernels(), std::move(weight), norm_of(info, kName, 6, "", N), activation_of(info, kName));
  }

  void compute(const Context& context, Pool& pool) {
    const Tensor x = floats(context, kName, 0, "x");
    if (x.shape.back() != linear_->K())
      throw Error(seen(kName, 0, "x", x) + "[..., " + std::to_string(linear_->K()) + "] is wanted");
    std::vector<int64_t> shape = x.shape;
    shape.back() = linear_->N();
    const std::optional<Tensor> residual = context.input(5);
    if (residual && residual->shape != shape)
      throw Error(seen(kName, 5, "residual", *residual) + text(shape) + " is wanted");
    linear_->run(pool, data(x), residual ? data(*residual) : nullptr, tokens_of(x), context.output(shape));
  }

 private:
  std::unique_ptr<Linear> linear_;
};

class AttentionKernel {
 public:
  static constexpr const char* kName = "Attention";
  static constexpr size_t kInputs = 5;
  static int type(size_t i) { return i == 3 ? ort::kInt64 : ort::kFloat; }
  static int characteristic(size_t i) { return i < 1 ? ort::kRequired : ort::kOptional; }

  explicit AttentionKernel(const Info& info)
      : heads_(heads_of(info, kName)), scale_(finite(info, kName, "scale", 0)), precision_(precision_of(info, kName)) {
    const char* together = " is missing; k and v come together or not at all";
    if (info.has(1) && !info.has(2)) throw Error(place(kName, 2, "v") + together);
    if (info.has(2) && !info.has(1)) throw Error(place(kName, 1, "k") + together);
  }

  void compute(const Context& context, Pool& pool) {
    const Tensor q = floats(context, kName, 0, "q");
    const bool merged = !context.input(1).has_value();
    const Tensor k = merged ? q : floats(context, kName, 1, "k"), v = merged ? q : floats(context, kName, 2, "v");
    const int64_t D = merged ? merged_size(q) : k.shape.back(), D2 = merged ? D : v.shape.back();
    if (!merged && q.shape.back() != D)
      throw Error(seen(kName, 0, "q", q) + "a last axis as k's, " + std::to_string(D) + ", is wanted");
    if (!merged && tokens_of(v) != tokens_of(k))
      throw Error(seen(kName, 2, "v", v) + "as many tokens as k, " + text(k.shape) + ", are wanted");
    const int64_t size = size_of(place(kName, 0, "q"), D, heads_), v_size = size_of(place(kName, 2, "v"), D2, heads_);
    const Sequences sequences = sequences_of(context.input(3), q, k);
    const float* bias = bias_of(context.input(4), place(kName, 4, "bias"), tokens_of(k));
    const AttentionInputs inputs{data(q), merged ? data(q) + D : data(k), merged ? data(q) + 2 * D : data(v),
                                 q.shape.back(), k.shape.back(), v.shape.back(), heads_, size, v_size,
                                 scale_ > 0 ? scale_ : 1 / std::sqrt(static_cast<float>(size)), bias, precision_};
    std::vector<int64_t> shape = q.shape;
    shape.back() = D2;
    float* out = context.output(shape);
    std::fill(out + sequences.queries.back() * D2, out + tokens_of(q) * D2, 0.0f);
    const AttentionPlan plan = attention_plan(sequences, inputs, pool.threads());
    Arena arena(buffers_, plan.parts.size() * sizeof(std::atomic<int32_t>));
    attention(pool, *kernels(), sequences, plan, inputs, out, D2, arena.next<std::atomic<int32_t>>(plan.parts.size()), Tail());
  }

 private:
  int64_t merged_size(const Tensor& q) const {
    const int64_t D = q.shape.back();
    if (D % 3 == 0) return D / 3;
    throw Error(seen(kName, 0, "q", q) + "without k and v a last axis of 3 D is wanted");
  }

  // Which tokens belong together: of bounds, or every row of a batch.
  static Sequences sequences_of(const std::optional<Tensor>& bounds, const Tensor& q, const Tensor& k) {
    const int64_t queries = tokens_of(q), keys = tokens_of(k);
    if (bounds) {
      const std::vector<int64_t> all = checked_bounds(*bounds, place(kName, 3, "bounds"), keys);
      const int64_t B = static_cast<int64_t>(all.size()) - 1;
      if (queries == keys) return {all, all};
      if (queries == B) return {even(B, 1), all};
      throw Error(seen(kName, 0, "q", q) + "as many tokens as k, " + std::to_string(keys) + ", or one a sequence, " +
                  std::to_string(B) + ", are wanted");
    }
    if (q.shape.size() != 3) throw Error(seen(kName, 0, "q", q) + "without bounds [B, S, D] is wanted");
    if (k.shape.size() != 3) throw Error(seen(kName, 1, "k", k) + "without bounds [B, S, D] is wanted");
    if (q.shape[0] != k.shape[0])
      throw Error(seen(kName, 0, "q", q) + "as many sequences as k, " + text(k.shape) + ", are wanted");
    return {even(q.shape[0], q.shape[1]), even(k.shape[0], k.shape[1])};
  }

  int64_t heads_;
  float scale_;
  Type precision_;
  Buffers buffers_;
};

class EncoderKernel {
 public:
  static constexpr const char* kName = "Encoder";
  static constexpr size_t kInputs = 4, kFirst = 3, kPerLayer = 20;
  static int type(size_t i) { return i == 0 || i == 2 ? ort::kFloat : i == 1 ? ort::kInt64 : ort::kUndefined; }
  static int characteristic(size_t i) { return i == 0 ? ort::kRequired : i < 3 ? ort::kOptional : ort::kVariadic; }

  explicit EncoderKernel(const Info& info) {
    const size_t inputs = info.inputs();
    const size_t count = inputs > kFirst ? (inputs - kFirst + kPerLayer - 1) / kPerLayer : 0;
    if (count == 0)
      throw Error("Encoder has " + std::to_string(inputs) + " inputs; 3 and 20 a layer, of at least one layer, are wanted");
    EncoderOptions options{heads_of(info, kName), finite(info, kName, "scale", 0), precision_of(info, kName),
                           activation_of(info, kName), order_of(info)};
    std::vector<Layer> layers;
    int64_t D = -1;
    for (size_t i = 0; i < count; ++i) {
      layers.push_back(layer_of(info, i, D));
      D = layers.front().qkv.view().K;
    }
    const int64_t size = size_of(place(kName, kFirst, "layer 0 qkv weight"), D, options.heads);
    if (!(options.scale > 0)) options.scale = 1 / std::sqrt(static_cast<float>(size));
    encoder_ = std::make_unique<Encoder>(*kernels(), D, std::move(layers), options);
  }

  void compute(const Context& context, Pool& pool) {
    const Tensor x = floats(context, kName, 0, "x");
    const int64_t D = encoder_->D(), tokens = tokens_of(x);
    const std::optional<Tensor> bounds = context.input(1);
    const std::string wanted = bounds ? "[..., " + std::to_string(D) + "]" : "[B, S, " + std::to_string(D) + "] without bounds";
    if (x.shape.back() != D || (!bounds && x.shape.size() != 3))
      throw Error(seen(kName, 0, "x", x) + wanted + " is wanted");
    const std::vector<int64_t> all =
        bounds ? checked_bounds(*bounds, place(kName, 1, "bounds"), tokens) : even(x.shape[0], x.shape[1]);
    const float* bias = bias_of(context.input(2), place(kName, 2, "bias"), tokens);
    encoder_->run(pool, data(x), bias, {all, all}, tokens, context.output(x.shape));
  }

 private:
  static bool order_of(const Info& info) {
    const std::string order = info.attribute("order", std::string("post"));
    if (order == "post" || order == "pre") return order == "pre";
    throw Error("Encoder, attribute order is " + quoted(order) + "; \"post\" or \"pre\" is wanted");
  }

  // Layer i; D: hidden size, or -1 where it is not known yet.
  static Layer layer_of(const Info& info, size_t i, int64_t D) {
    const size_t first = kFirst + i * kPerLayer;
    const std::string name = "layer " + std::to_string(i) + " ";
    if (D < 0) D = hidden_size(info, first, name);
    PackedWeight qkv = packed(info, kName, first, name + "qkv ", D, 3 * D);
    PackedWeight out = packed(info, kName, first + 4, name + "out ", D, D);
    Norm norm1 = needed_norm(info, first + 8, name + "norm1 ", D);
    PackedWeight up = packed(info, kName, first + 10, name + "up ", D, -1);
    PackedWeight down = packed(info, kName, first + 14, name + "down ", up.view().N, D);
    Norm norm2 = needed_norm(info, first + 18, name + "norm2 ", D);
    return {std::move(qkv), std::move(out), std::move(norm1), std::move(up), std::move(down), std::move(norm2)};
  }

  // D, which the first layer's qkv weight tells.
  static int64_t hidden_size(const Info& info, size_t first, const std::string& name) {
    const std::string where = place(kName, first, name + "qkv weight");
    const std::optional<Tensor> weight = info.constant(first, where);
    if (!weight) throw Error(where + " is missing");
    if (weight->shape.size() == 2) return weight->shape[0];
    throw Error(seen(kName, first, (name + "qkv weight").c_str(), *weight) + "[D, 3 D] is wanted");
  }

  static Norm needed_norm(const Info& info, size_t first, const std::string& prefix, int64_t D) {
    Norm norm = norm_of(info, kName, first, prefix, D);
    if (!norm) throw Error(place(kName, first, prefix + "gamma") + " is missing");
    return norm;
  }

  std::unique_ptr<Encoder> encoder_;
};

// What ONNX Runtime calls: nothing thrown leaves.
template <class Kernel>
struct Operator {
  Api api;
  Kernel kernel;

  static OrtStatus* create(const OrtCustomOp*, const OrtApi* raw, const OrtKernelInfo* info, void** to) {
    const Api api(raw);
    return guarded(api, [&] { *to = new Operator{api, Kernel(Info(api, info))}; });
  }
  static OrtStatus* compute(void* self, OrtKernelContext* raw) {
    Operator& op = *static_cast<Operator*>(self);
    return guarded(op.api, [&] {
      SessionPool pool(op.api, raw);
      op.kernel.compute(Context(op.api, raw), pool);
    });
  }
  static void destroy(void* self) { delete static_cast<Operator*>(self); }

  template <class Action>
  static OrtStatus* guarded(const Api& api, Action&& action) {
    try {
      action();
      return nullptr;
    } catch (const std::bad_alloc&) {
      return api.at<ort::CreateStatus>(ort::kCreateStatus)(ort::kFail, "onnxfuse: no memory left");
    } catch (const std::exception& error) {
      return api.at<ort::CreateStatus>(ort::kCreateStatus)(ort::kInvalidArgument, error.what());
    } catch (...) {
      return api.at<ort::CreateStatus>(ort::kCreateStatus)(ort::kFail, "onnxfuse: an unknown error");
    }
  }

  static const OrtCustomOp* entry() {
    static const OrtCustomOp op = [] {
      OrtCustomOp one{};
      one.version = ort::kVersion;
      one.GetName = [](const OrtCustomOp*) { return Kernel::kName; };
      one.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
      one.GetInputType = [](const OrtCustomOp*, size_t i) { return Kernel::type(i); };
      one.GetInputTypeCount = [](const OrtCustomOp*) { return Kernel::kInputs; };
      one.GetOutputType = [](const OrtCustomOp*, size_t) { return ort::kFloat; };
      one.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
      one.KernelDestroy = destroy;
      one.GetInputCharacteristic = [](const OrtCustomOp*, size_t i) { return Kernel::characteristic(i); };
      one.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return ort::kRequired; };
      one.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
      one.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
      one.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
      one.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
      one.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
      one.CreateKernelV2 = create;
      one.KernelComputeV2 = compute;
      one.GetStartVersion = [](const OrtCustomOp*) { return 1; };
      one.GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
      return one;
    }();
    return &op;
  }
};

}  // namespace

const std::vector<const OrtCustomOp*>& operators() {
  static const std::vector<const OrtCustomOp*> all = {Operator<LinearKernel>::entry(), Operator<AttentionKernel>::entry(),
                                                      Operator<EncoderKernel>::entry()};
  return all;
}

}  // namespace onnxfuse
