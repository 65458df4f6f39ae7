// The part of ONNX Runtime's C ABI that a library of custom operators needs.
//
// No package ships ONNX Runtime's headers, and its ABI is append-only: a slot, once released,
// keeps its place. Only the slots used here have types; the others are counted, not named, and
// the counts are checked below against those that ONNX Runtime itself asserts.
//
// Source: onnxruntime/core/session/onnxruntime_c_api.h and onnxruntime_c_api.cc, Copyright (c)
// Microsoft Corporation, MIT License; the order of slots and fields, nothing of their text.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define DLZOO_ORT_CALL __stdcall
#else
#define DLZOO_ORT_CALL
#endif

extern "C" {

struct OrtStatus;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;
struct OrtCustomOp;
struct OrtApi;

enum OrtErrorCode : int { ORT_FAIL = 1, ORT_NOT_IMPLEMENTED = 9 };
enum OrtElementType : int { ORT_FLOAT = 1, ORT_FLOAT16 = 10, ORT_DOUBLE = 11, ORT_BFLOAT16 = 16 };
enum OrtCharacteristic : int { ORT_REQUIRED = 0 };
enum OrtMemType : int { ORT_MEM_TYPE_DEFAULT = 0 };

struct OrtApiBase {
  const OrtApi*(DLZOO_ORT_CALL* GetApi)(uint32_t version);
  const char*(DLZOO_ORT_CALL* GetVersionString)();
};

using OrtUnusedSlot = void (*)();

struct OrtApi {
  OrtStatus*(DLZOO_ORT_CALL* CreateStatus)(OrtErrorCode, const char* message);
  OrtUnusedSlot unused_1[25];
  OrtStatus*(DLZOO_ORT_CALL* CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain** out);
  OrtStatus*(DLZOO_ORT_CALL* CustomOpDomain_Add)(OrtCustomOpDomain*, const OrtCustomOp*);
  OrtStatus*(DLZOO_ORT_CALL* AddCustomOpDomain)(OrtSessionOptions*, OrtCustomOpDomain*);
  OrtUnusedSlot unused_29[22];
  OrtStatus*(DLZOO_ORT_CALL* GetTensorMutableData)(OrtValue*, void** out);
  OrtUnusedSlot unused_52[9];
  OrtStatus*(DLZOO_ORT_CALL* GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, size_t* out);
  OrtStatus*(DLZOO_ORT_CALL* GetDimensions)(const OrtTensorTypeAndShapeInfo*, int64_t* dims,
                                            size_t num_dims);
  OrtUnusedSlot unused_63[1];
  OrtStatus*(DLZOO_ORT_CALL* GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo*,
                                                         size_t* out);
  OrtStatus*(DLZOO_ORT_CALL* GetTensorTypeAndShape)(const OrtValue*,
                                                    OrtTensorTypeAndShapeInfo** out);
  OrtUnusedSlot unused_66[24];
  OrtStatus*(DLZOO_ORT_CALL* KernelContext_GetInput)(const OrtKernelContext*, size_t index,
                                                     const OrtValue** out);
  OrtStatus*(DLZOO_ORT_CALL* KernelContext_GetOutput)(OrtKernelContext*, size_t index,
                                                      const int64_t* dims, size_t num_dims,
                                                      OrtValue** out);
  OrtUnusedSlot unused_92[7];
  void(DLZOO_ORT_CALL* ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo*);
  OrtUnusedSlot unused_100[1];
  void(DLZOO_ORT_CALL* ReleaseCustomOpDomain)(OrtCustomOpDomain*);
  OrtUnusedSlot unused_102[166];
  OrtStatus*(DLZOO_ORT_CALL* ShapeInferContext_GetInputTypeShape)(
      const OrtShapeInferContext*, size_t index, OrtTensorTypeAndShapeInfo** out);
  OrtUnusedSlot unused_269[1];
  OrtStatus*(DLZOO_ORT_CALL* ShapeInferContext_SetOutputTypeShape)(
      const OrtShapeInferContext*, size_t index, const OrtTensorTypeAndShapeInfo*);
  OrtUnusedSlot unused_271[3];
  OrtStatus*(DLZOO_ORT_CALL* KernelContext_ParallelFor)(const OrtKernelContext*,
                                                        void (*task)(void*, size_t),
                                                        size_t num_tasks, size_t num_batches,
                                                        void* argument);
};

// Fields by the API version that added them. The kernel is filled up to 18 and says so in
// `version`; ONNX Runtime reads no field above that.
struct OrtCustomOp {
  uint32_t version;
  void*(DLZOO_ORT_CALL* CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char*(DLZOO_ORT_CALL* GetName)(const OrtCustomOp*);
  const char*(DLZOO_ORT_CALL* GetExecutionProviderType)(const OrtCustomOp*);
  OrtElementType(DLZOO_ORT_CALL* GetInputType)(const OrtCustomOp*, size_t index);
  size_t(DLZOO_ORT_CALL* GetInputTypeCount)(const OrtCustomOp*);
  OrtElementType(DLZOO_ORT_CALL* GetOutputType)(const OrtCustomOp*, size_t index);
  size_t(DLZOO_ORT_CALL* GetOutputTypeCount)(const OrtCustomOp*);
  void(DLZOO_ORT_CALL* KernelCompute)(void* kernel, OrtKernelContext*);
  void(DLZOO_ORT_CALL* KernelDestroy)(void* kernel);
  // 8
  OrtCharacteristic(DLZOO_ORT_CALL* GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  OrtCharacteristic(DLZOO_ORT_CALL* GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  // 13
  OrtMemType(DLZOO_ORT_CALL* GetInputMemoryType)(const OrtCustomOp*, size_t index);
  // 14
  int(DLZOO_ORT_CALL* GetVariadicInputMinArity)(const OrtCustomOp*);
  int(DLZOO_ORT_CALL* GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int(DLZOO_ORT_CALL* GetVariadicOutputMinArity)(const OrtCustomOp*);
  int(DLZOO_ORT_CALL* GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  // 16
  OrtStatus*(DLZOO_ORT_CALL* CreateKernelV2)(const OrtCustomOp*, const OrtApi*,
                                             const OrtKernelInfo*, void** kernel);
  OrtStatus*(DLZOO_ORT_CALL* KernelComputeV2)(void* kernel, OrtKernelContext*);
  // 17
  OrtStatus*(DLZOO_ORT_CALL* InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int(DLZOO_ORT_CALL* GetStartVersion)(const OrtCustomOp*);
  int(DLZOO_ORT_CALL* GetEndVersion)(const OrtCustomOp*);
  // 18
  size_t(DLZOO_ORT_CALL* GetMayInplace)(int** input_index, int** output_index);
  void(DLZOO_ORT_CALL* ReleaseMayInplace)(int* input_index, int* output_index);
  size_t(DLZOO_ORT_CALL* GetAliasMap)(int** input_index, int** output_index);
  void(DLZOO_ORT_CALL* ReleaseAliasMap)(int* input_index, int* output_index);
};

}  // extern "C"

// Slots by their number. ONNX Runtime itself asserts that ReleaseCustomOpDomain, the last of
// API version 1, is slot 101.
#define DLZOO_CHECK_SLOT(NAME, NUMBER) \
  static_assert(offsetof(OrtApi, NAME) / sizeof(void*) == NUMBER, #NAME " is in another slot")
DLZOO_CHECK_SLOT(CreateCustomOpDomain, 26);
DLZOO_CHECK_SLOT(AddCustomOpDomain, 28);
DLZOO_CHECK_SLOT(GetTensorMutableData, 51);
DLZOO_CHECK_SLOT(GetDimensions, 62);
DLZOO_CHECK_SLOT(GetTensorTypeAndShape, 65);
DLZOO_CHECK_SLOT(KernelContext_GetOutput, 91);
DLZOO_CHECK_SLOT(ReleaseTensorTypeAndShapeInfo, 99);
DLZOO_CHECK_SLOT(ReleaseCustomOpDomain, 101);
DLZOO_CHECK_SLOT(ShapeInferContext_SetOutputTypeShape, 270);
DLZOO_CHECK_SLOT(KernelContext_ParallelFor, 274);
static_assert(sizeof(OrtCustomOp) == 26 * sizeof(void*), "a field of OrtCustomOp is missing");
