/* Loads a SavedModel with TensorFlow's C API, as TF Serving's loader does, without Python.

   serve MODEL INPUT STATUS CLASSES SCORES LABELS IMAGE...

   The five names are tensors of a signature, "name:index". One line for each image: status,
   best class, its probability, its label. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { INPUT = 2, FIRST_OUTPUT = 3, NUM_OUTPUTS = 4, FIRST_IMAGE = 7 };

static void check(TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

static TF_Output find(TF_Graph* graph, const char* name) {
  char operation[1000];
  const char* colon = strrchr(name, ':');
  snprintf(operation, sizeof operation, "%.*s", (int)(colon - name), name);
  TF_Output output = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (output.oper == NULL) {
    fprintf(stderr, "There is no tensor %s.\n", name);
    exit(1);
  }
  return output;
}

static void read_file(const char* path, TF_TString* text) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) {
    perror(path);
    exit(1);
  }
  fseek(file, 0, SEEK_END);
  size_t size = ftell(file);
  rewind(file);
  char* bytes = malloc(size + 1);
  if (fread(bytes, 1, size, file) != size) exit(1);
  fclose(file);
  TF_StringInit(text);
  TF_StringCopy(text, bytes, size);
  free(bytes);
}

/* The first of the k values of an image; of a tensor (B,) the only one. */
static void* best(TF_Tensor* tensor, int image, size_t size) {
  int k = TF_NumDims(tensor) == 2 ? (int)TF_Dim(tensor, 1) : 1;
  return (char*)TF_TensorData(tensor) + (size_t)image * k * size;
}

static void print_text(const TF_TString* text) {
  printf("%.*s", (int)TF_StringGetSize(text), TF_StringGetDataPointer(text));
}

int main(int count, char** arguments) {
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1,
                                                     graph, NULL, status);
  check(status, "load");

  int64_t num_images = count - FIRST_IMAGE;
  TF_Tensor* files =
      TF_AllocateTensor(TF_STRING, &num_images, 1, num_images * sizeof(TF_TString));
  TF_TString* texts = TF_TensorData(files);
  for (int i = 0; i < num_images; ++i) read_file(arguments[FIRST_IMAGE + i], texts + i);

  TF_Output input = find(graph, arguments[INPUT]);
  TF_Output outputs[NUM_OUTPUTS];
  TF_Tensor* values[NUM_OUTPUTS];
  for (int i = 0; i < NUM_OUTPUTS; ++i) {
    outputs[i] = find(graph, arguments[FIRST_OUTPUT + i]);
  }
  TF_SessionRun(session, NULL, &input, &files, 1, outputs, values, NUM_OUTPUTS, NULL, 0,
                NULL, status);
  check(status, "run");

  for (int i = 0; i < num_images; ++i) {
    print_text(best(values[0], i, sizeof(TF_TString)));
    printf("\t%d", *(int32_t*)best(values[1], i, sizeof(int32_t)));
    printf("\t%.6f\t", *(float*)best(values[2], i, sizeof(float)));
    print_text(best(values[3], i, sizeof(TF_TString)));
    printf("\n");
  }

  for (int i = 0; i < num_images; ++i) TF_StringDealloc(texts + i);
  for (int i = 0; i < NUM_OUTPUTS; ++i) TF_DeleteTensor(values[i]);
  TF_DeleteTensor(files);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
