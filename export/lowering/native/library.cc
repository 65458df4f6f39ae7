// Kernels of domain `dlzoo` for ONNX Runtime's CPU provider, as a library of custom operators.
//
// ONNX Runtime calls RegisterCustomOps. Whoever loads the library asks
// dlzoo_native_abi_version and dlzoo_native_ort_api_version first: neither needs ONNX Runtime.
#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "mish.h"
#include "onnxruntime_abi.h"

#if !defined(DLZOO_NATIVE_ABI_VERSION) || !defined(DLZOO_ORT_API_VERSION)
#error "Build with: python -m dlzoo.export.lowering.native"
#endif

#if defined(_WIN32)
#define DLZOO_EXPORT extern "C" __declspec(dllexport)
#else
#define DLZOO_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

// The fields of OrtCustomOp that onnxruntime_abi.h knows.
constexpr uint32_t kCustomOpVersion = 18;
// Elements of one task: 64 KiB of float32, so that input and output stay in a core's cache.
constexpr size_t kTaskSize = 16384;

std::atomic<const OrtApi*> ort_api{nullptr};
// One domain for all sessions, and never released: a session may outlive whatever would.
std::atomic<OrtCustomOpDomain*> shared_domain{nullptr};

const OrtApi* ort() { return ort_api.load(std::memory_order_relaxed); }

template <typename T>
struct Work {
  const T* x;
  T* y;
  size_t count;
};

template <typename T>
void run_task(void* argument, size_t task) {
  const auto* work = static_cast<const Work<T>*>(argument);
  const size_t begin = task * kTaskSize;
  const size_t left = work->count - begin;
  dlzoo::mish(work->x + begin, work->y + begin, left < kTaskSize ? left : kTaskSize);
}

#define DLZOO_RETURN_IF_ERROR(CALL)        \
  do {                                     \
    if (OrtStatus* status = (CALL)) {      \
      return status;                       \
    }                                      \
  } while (false)

// Ranks up to this one need no memory of their own.
constexpr size_t kMaxRank = 32;

OrtStatus* allocate_output(OrtKernelContext* context, const OrtTensorTypeAndShapeInfo* shape,
                           OrtValue** output) {
  size_t rank = 0;
  DLZOO_RETURN_IF_ERROR(ort()->GetDimensionsCount(shape, &rank));
  if (rank > kMaxRank) {
    return ort()->CreateStatus(ORT_NOT_IMPLEMENTED, "dlzoo::Mish takes at most 32 dimensions");
  }
  int64_t dims[kMaxRank] = {};
  DLZOO_RETURN_IF_ERROR(ort()->GetDimensions(shape, dims, rank));
  return ort()->KernelContext_GetOutput(context, 0, dims, rank, output);
}

template <typename T>
OrtStatus* DLZOO_ORT_CALL compute(void*, OrtKernelContext* context) {
  const OrtValue* input = nullptr;
  DLZOO_RETURN_IF_ERROR(ort()->KernelContext_GetInput(context, 0, &input));
  OrtTensorTypeAndShapeInfo* shape = nullptr;
  DLZOO_RETURN_IF_ERROR(ort()->GetTensorTypeAndShape(input, &shape));
  size_t count = 0;
  OrtValue* output = nullptr;
  OrtStatus* status = ort()->GetTensorShapeElementCount(shape, &count);
  if (status == nullptr) {
    status = allocate_output(context, shape, &output);
  }
  ort()->ReleaseTensorTypeAndShapeInfo(shape);
  if (status != nullptr || count == 0) {
    return status;
  }
  // The ABI has one accessor for both; the input is only read.
  void* x = nullptr;
  void* y = nullptr;
  DLZOO_RETURN_IF_ERROR(ort()->GetTensorMutableData(const_cast<OrtValue*>(input), &x));
  DLZOO_RETURN_IF_ERROR(ort()->GetTensorMutableData(output, &y));
  Work<T> work{static_cast<const T*>(x), static_cast<T*>(y), count};
  const size_t num_tasks = (count + kTaskSize - 1) / kTaskSize;
  // The session's own threads: 0 batches means as many as those are.
  return ort()->KernelContext_ParallelFor(context, run_task<T>, num_tasks, 0, &work);
}

OrtStatus* DLZOO_ORT_CALL infer_shape(const OrtCustomOp*, OrtShapeInferContext* context) {
  OrtTensorTypeAndShapeInfo* shape = nullptr;
  DLZOO_RETURN_IF_ERROR(ort()->ShapeInferContext_GetInputTypeShape(context, 0, &shape));
  return ort()->ShapeInferContext_SetOutputTypeShape(context, 0, shape);  // the context owns it
}

// ONNX Runtime hands the arrays back to release_in_place.
size_t DLZOO_ORT_CALL may_run_in_place(int** input_index, int** output_index) {
  *input_index = static_cast<int*>(std::calloc(1, sizeof(int)));
  *output_index = static_cast<int*>(std::calloc(1, sizeof(int)));
  return *input_index != nullptr && *output_index != nullptr ? 1 : 0;
}

void DLZOO_ORT_CALL release_in_place(int* input_index, int* output_index) {
  std::free(input_index);
  std::free(output_index);
}

template <typename T, OrtElementType kType>
OrtCustomOp mish_op() {
  OrtCustomOp op = {};
  op.version = kCustomOpVersion;
  op.GetName = [](const OrtCustomOp*) { return "Mish"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputType = [](const OrtCustomOp*, size_t) { return kType; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kType; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  // The two callbacks of API 16, which can fail, take the place of those of API 1.
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*,
                         void** kernel) -> OrtStatus* {
    *kernel = nullptr;  // Mish has neither attributes nor state
    return nullptr;
  };
  op.KernelComputeV2 = compute<T>;
  op.KernelDestroy = [](void*) {};
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return ORT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return ORT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return ORT_MEM_TYPE_DEFAULT; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.InferOutputShapeFn = infer_shape;
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  op.GetMayInplace = may_run_in_place;
  op.ReleaseMayInplace = release_in_place;
  op.GetAliasMap = [](int** input_index, int** output_index) -> size_t {
    *input_index = *output_index = nullptr;
    return 0;
  };
  op.ReleaseAliasMap = [](int*, int*) {};
  return op;
}

// "1.32.0" -> 32, which is the newest API version that this ONNX Runtime knows.
uint32_t api_version_of(const OrtApiBase* base) {
  unsigned major = 0, minor = 0;
  return std::sscanf(base->GetVersionString(), "%u.%u", &major, &minor) == 2 && major == 1
             ? minor
             : 0;
}

// Every type that the function body takes, or a model would open only without the library.
const OrtCustomOp kOps[] = {
    mish_op<float, ORT_FLOAT>(),
    mish_op<double, ORT_DOUBLE>(),
    mish_op<dlzoo::Float16, ORT_FLOAT16>(),
    mish_op<dlzoo::BFloat16, ORT_BFLOAT16>(),
};

OrtStatus* make_domain(OrtCustomOpDomain** domain) {
  DLZOO_RETURN_IF_ERROR(ort()->CreateCustomOpDomain("dlzoo", domain));
  for (const OrtCustomOp& op : kOps) {
    DLZOO_RETURN_IF_ERROR(ort()->CustomOpDomain_Add(*domain, &op));
  }
  return nullptr;
}

OrtStatus* register_kernels(OrtSessionOptions* options) {
  OrtCustomOpDomain* domain = shared_domain.load();
  if (domain == nullptr) {
    OrtCustomOpDomain* made = nullptr;
    DLZOO_RETURN_IF_ERROR(make_domain(&made));
    if (shared_domain.compare_exchange_strong(domain, made)) {
      domain = made;
    } else {  // another thread was first, and `domain` is now its
      ort()->ReleaseCustomOpDomain(made);
    }
  }
  return ort()->AddCustomOpDomain(options, domain);
}

}  // namespace

DLZOO_EXPORT int dlzoo_native_abi_version() { return DLZOO_NATIVE_ABI_VERSION; }

DLZOO_EXPORT int dlzoo_native_ort_api_version() { return DLZOO_ORT_API_VERSION; }

DLZOO_EXPORT const char* dlzoo_native_instructions() { return dlzoo::mish_instructions(); }

DLZOO_EXPORT OrtStatus* DLZOO_ORT_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                         const OrtApiBase* base) {
  // GetApi of a version that is not there prints to stderr, so the number is compared first.
  if (api_version_of(base) >= DLZOO_ORT_API_VERSION) {
    ort_api = base->GetApi(DLZOO_ORT_API_VERSION);
  }
  if (ort() == nullptr) {
    char message[160];
    std::snprintf(message, sizeof message,
                  "the dlzoo kernels need ONNX Runtime 1.%d or later, this is %s",
                  DLZOO_ORT_API_VERSION, base->GetVersionString());
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message);
  }
  return register_kernels(options);
}
