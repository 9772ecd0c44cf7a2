#include <torch/library.h>

#include <string>

#include "torch/errors.h"
#include "torch/io_helper.h"
#include "torch/load_job.h"
#include "torch/save_job.h"

// All that PyTorch sees of us: the classes, then every operator's schema. What the operators do is in ops.cpp.
namespace veturbo {

namespace {

// A method of a class as TorchScript calls it, with our errors made PyTorch's.
template <typename Class, typename Result, typename... Args>
auto method(Result (Class::*body)(Args...)) {
  return [body](const c10::intrusive_ptr<Class>& self, Args... args) {
    return with_errors([&] { return ((*self).*body)(args...); });
  };
}

template <typename Class, typename Result>
auto method(Result (Class::*body)() const) {
  return [body](const c10::intrusive_ptr<Class>& self) { return with_errors([&] { return ((*self).*body)(); }); };
}

// TorchScript takes an operator whose schema shows no aliasing for a pure function: it would drop a save whose result nobody uses
// and give two loads of one file the same tensors.
c10::FunctionSchema schema(const char* text) {
  return torch::schema(text, c10::AliasAnalysisKind::CONSERVATIVE);
}

}  // namespace

TORCH_LIBRARY(veturbo, library) {
  library.class_<IOHelper>("IOHelper")
      .def(torch::init<>())
      .def("bytes", method(&IOHelper::bytes))
      .def("release", method(&IOHelper::release))
      // A scripted module may hold a helper; when it is loaded it gets an empty one.
      .def_pickle([](const c10::intrusive_ptr<IOHelper>&) { return std::string(); },
                  [](const std::string&) { return c10::make_intrusive<IOHelper>(); });
  library.class_<LoadJob>("LoadJob")
      .def("wait", method(&LoadJob::wait))
      .def("cancel", method(&LoadJob::cancel))
      .def("progress", method(&LoadJob::progress))
      .def("result", method(&LoadJob::result))
      .def("metadata", method(&LoadJob::metadata));
  library.class_<SaveJob>("SaveJob")
      .def("wait", method(&SaveJob::wait))
      .def("cancel", method(&SaveJob::cancel))
      .def("progress", method(&SaveJob::progress))
      .def("result", method(&SaveJob::result));
  library.class_<FileWriter>("FileWriter")
      .def(
          torch::init([](const std::string& file) { return with_errors([&] { return c10::make_intrusive<FileWriter>(file); }); }))
      .def("write", method(&FileWriter::write))
      .def("commit", method(&FileWriter::commit))
      .def("discard", method(&FileWriter::discard));

  library.def(schema(
      "load_file(str file, Device? device=None, *, int num_threads=0, bool use_pinned_memory=True, bool? use_direct_io=None, "
      "bool mmap=False, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None) -> Dict(str, Tensor)"));
  library.def(
      schema("load_file_(Dict(str, Tensor) tensors, str file, *, int num_threads=0, bool use_pinned_memory=True, "
             "bool? use_direct_io=None, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None) -> ()"));
  library.def(
      schema("save_file(Dict(str, Tensor) tensors, str file, *, Dict(str, str)? metadata=None, int num_threads=0, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None) -> ()"));

  // The same, begun and not waited for: see LoadJob and SaveJob.
  library.def(schema(
      "start_load(str file, Device? device=None, *, int num_threads=0, bool use_pinned_memory=True, bool? use_direct_io=None, "
      "bool mmap=False, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None) "
      "-> __torch__.torch.classes.veturbo.LoadJob"));
  library.def(
      schema("start_load_(Dict(str, Tensor) tensors, str file, *, int num_threads=0, bool use_pinned_memory=True, "
             "bool? use_direct_io=None, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None) "
             "-> __torch__.torch.classes.veturbo.LoadJob"));
  library.def(
      schema("start_save(Dict(str, Tensor) tensors, str file, *, Dict(str, str)? metadata=None, int num_threads=0, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None) -> __torch__.torch.classes.veturbo.SaveJob"));
  // All bytes of any file, into a contiguous tensor of uint8 of the same size.
  library.def(schema(
      "start_read_(Tensor(a!) buffer, str file, *, int num_threads=0, bool use_pinned_memory=True, bool? use_direct_io=None, "
      "__torch__.torch.classes.veturbo.IOHelper? helper=None) -> __torch__.torch.classes.veturbo.LoadJob"));

  library.def(schema("read_metadata(str file) -> Dict(str, str)"));
  // The file's own dtypes and shapes ("F32"; two elements a byte for F4), in the order of the data.
  library.def(schema("list_tensors(str file) -> (str[] names, str[] dtypes, int[][] shapes)"));

  library.def(schema("file_size(str file) -> int"));

  // What the calling thread's last call of ours failed with, told once; see errors.h.
  library.def(schema("last_error() -> (str kind, int errno, str file, str tensor, int offset, str cause)"));
  // The versions that this library was built for: "torch", and "cuda" ("" in a build without it).
  library.def(schema("build_info() -> Dict(str, str)"));
}

}  // namespace veturbo
