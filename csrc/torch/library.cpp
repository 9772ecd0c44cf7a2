#include <torch/library.h>

#include <string>

#include "torch/checksum_job.h"
#include "torch/cipher.h"
#include "torch/errors.h"
#include "torch/file_stream.h"
#include "torch/io_helper.h"
#include "torch/load_job.h"
#include "torch/model_reader.h"
#include "torch/open_job.h"
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

template <typename Class, typename Result, typename... Args>
auto method(Result (Class::*body)(Args...) const) {
  return [body](const c10::intrusive_ptr<Class>& self, Args... args) {
    return with_errors([&] { return ((*self).*body)(args...); });
  };
}

template <typename Class>
auto opener() {
  return [](const std::string& file, const OptionalCipher& cipher) {
    return with_errors([&] { return c10::make_intrusive<Class>(file, cipher); });
  };
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
  library.class_<Cipher>("Cipher").def("source", method(&Cipher::source));
  library.class_<ModelReader>("ModelReader")
      .def("list_tensors", method(&ModelReader::list_tensors))
      .def("metadata", method(&ModelReader::metadata))
      .def("tensor_sizes", method(&ModelReader::tensor_sizes))
      .def("window_bytes", method(&ModelReader::window_bytes))
      .def("is_mappable", method(&ModelReader::is_mappable))
      .def("is_cold", method(&ModelReader::is_cold))
      .def("bytes_read", method(&ModelReader::bytes_read))
      .def("read_tensor", method(&ModelReader::read_tensor))
      .def("meta_tensor", method(&ModelReader::meta_tensor))
      .def("map_tensor", [](const c10::intrusive_ptr<ModelReader>& self, const std::string& name) {
        return with_errors([&] { return self->map_tensor(name); });
      });
  library.class_<OpenJob>("OpenJob")
      .def("wait", method(&OpenJob::wait))
      .def("cancel", method(&OpenJob::cancel))
      .def("progress", method(&OpenJob::progress))
      .def("result", method(&OpenJob::result));
  library.class_<LoadJob>("LoadJob")
      .def("wait", method(&LoadJob::wait))
      .def("cancel", method(&LoadJob::cancel))
      .def("progress", method(&LoadJob::progress))
      .def("result", method(&LoadJob::result))
      .def("result_lists", method(&LoadJob::result_lists))
      .def("warnings", method(&LoadJob::warnings))
      .def("metadata", method(&LoadJob::metadata));
  library.class_<SaveJob>("SaveJob")
      .def("wait", method(&SaveJob::wait))
      .def("cancel", method(&SaveJob::cancel))
      .def("progress", method(&SaveJob::progress))
      .def("ready", method(&SaveJob::ready))
      .def("result", method(&SaveJob::result));
  library.class_<ChecksumJob>("ChecksumJob")
      .def("wait", method(&ChecksumJob::wait))
      .def("cancel", method(&ChecksumJob::cancel))
      .def("result", method(&ChecksumJob::result));
  library.class_<CipherJob>("CipherJob")
      .def("wait", method(&CipherJob::wait))
      .def("cancel", method(&CipherJob::cancel))
      .def("result", method(&CipherJob::result));
  library.class_<FileReader>("FileReader")
      .def(torch::init(opener<FileReader>()))
      .def("size", method(&FileReader::size))
      .def("warnings", method(&FileReader::warnings))
      .def("read_into", method(&FileReader::read_into));
  library.class_<FileWriter>("FileWriter")
      .def(torch::init(opener<FileWriter>()))
      .def("write", method(&FileWriter::write))
      .def("commit", method(&FileWriter::commit))
      .def("discard", method(&FileWriter::discard));

  // With use_cipher None a file is encrypted, or taken for encrypted, when a key is given or VETURBOIO_USE_CIPHER is 1. `key`, of
  // 16 or 32 bytes, and `iv`, of 16, are tensors of uint8 on the CPU; without them the key is searched for, see keys/find_key.h.
  library.def(schema(
      "load_file(str file, Device? device=None, *, int num_threads=0, bool use_pinned_memory=True, bool? use_direct_io=None, "
      "bool mmap=False, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None, bool? use_cipher=None, "
      "Tensor? key=None, Tensor? iv=None) -> Dict(str, Tensor)"));
  library.def(
      schema("load_file_(Dict(str, Tensor) tensors, str file, *, int num_threads=0, bool use_pinned_memory=True, "
             "bool? use_direct_io=None, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None, "
             "bool? use_cipher=None, Tensor? key=None, Tensor? iv=None) -> ()"));
  library.def(
      schema("save_file(Dict(str, Tensor) tensors, str file, *, Dict(str, str)? metadata=None, int num_threads=0, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None, bool? use_cipher=None, Tensor? key=None, Tensor? iv=None) "
             "-> ()"));

  // The key of a file that is there, or of one that is to be written, for the operators below: see CipherJob.
  library.def(
      schema("start_find_cipher(str file, *, bool? use_cipher=None, Tensor? key=None, Tensor? iv=None) "
             "-> __torch__.torch.classes.veturbo.CipherJob"));
  library.def(
      schema("start_make_cipher(str file, *, bool? use_cipher=None, Tensor? key=None, Tensor? iv=None) "
             "-> __torch__.torch.classes.veturbo.CipherJob"));

  // Decrypts, or encrypts, the bytes of a contiguous tensor of any dtype in place by AES-CTR. Its first byte is byte `offset` of
  // the stream; `key` and `iv` as above, also for a tensor on another device.
  library.def("aes_ctr_decrypt_(Tensor(a!) self, Tensor key, Tensor iv, int offset=0) -> Tensor(a!)",
              {at::Tag::pt2_compliant_tag});

  // The same into a new tensor, which is what torch.compile makes of it.
  library.def("aes_ctr_decrypt(Tensor self, Tensor key, Tensor iv, int offset=0) -> Tensor", {at::Tag::pt2_compliant_tag});

  // Loads and saves begun and not waited for: see LoadJob and SaveJob. Without a cipher the file is plain.
  library.def(schema(
      "start_load(str file, Device? device=None, *, int num_threads=0, bool use_pinned_memory=True, bool? use_direct_io=None, "
      "bool mmap=False, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None, "
      "__torch__.torch.classes.veturbo.Cipher? cipher=None) -> __torch__.torch.classes.veturbo.LoadJob"));
  library.def(
      schema("start_load_(Dict(str, Tensor) tensors, str file, *, int num_threads=0, bool use_pinned_memory=True, "
             "bool? use_direct_io=None, str[]? names=None, __torch__.torch.classes.veturbo.IOHelper? helper=None, "
             "__torch__.torch.classes.veturbo.Cipher? cipher=None) -> __torch__.torch.classes.veturbo.LoadJob"));
  library.def(
      schema("start_save(Dict(str, Tensor) tensors, str file, *, Dict(str, str)? metadata=None, int num_threads=0, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None, __torch__.torch.classes.veturbo.Cipher? cipher=None) "
             "-> __torch__.torch.classes.veturbo.SaveJob"));
  // A file that is opened once for many loads of some of its tensors, or one in memory: see ModelReader.
  library.def(
      schema("open_model(str file, *, bool? use_direct_io=None, __torch__.torch.classes.veturbo.Cipher? cipher=None) "
             "-> __torch__.torch.classes.veturbo.ModelReader"));
  library.def(
      schema("start_open_model(str file, *, bool? use_direct_io=None, __torch__.torch.classes.veturbo.Cipher? cipher=None, "
             "bool is_only=False) -> __torch__.torch.classes.veturbo.OpenJob"));
  library.def(schema("open_buffer(Tensor bytes, str name) -> __torch__.torch.classes.veturbo.ModelReader"));
  // Of several files at once; `names` has a list for each.
  library.def(
      schema("start_load_models(__torch__.torch.classes.veturbo.ModelReader[] models, Device? device=None, *, int num_threads=0, "
             "bool use_pinned_memory=True, bool mmap=False, str[][]? names=None, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None, int? max_host_bytes=None) -> "
             "__torch__.torch.classes.veturbo.LoadJob"));
  library.def(
      schema("start_load_models_(Dict(str, Tensor) tensors, __torch__.torch.classes.veturbo.ModelReader[] models, *, "
             "int num_threads=0, bool use_pinned_memory=True, str[][]? names=None, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None, int? max_host_bytes=None) -> "
             "__torch__.torch.classes.veturbo.LoadJob"));
  // Parts of tensors: the views, in elements, that basic indexing makes of them. The results are contiguous.
  library.def(
      schema("start_load_views(__torch__.torch.classes.veturbo.ModelReader model, str[] names, int[] offsets, int[][] sizes, "
             "int[][] strides, Device? device=None, *, int num_threads=0, bool use_pinned_memory=True, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None, int? max_host_bytes=None) -> "
             "__torch__.torch.classes.veturbo.LoadJob"));
  // The bytes of the file that save_file() writes.
  library.def(schema("serialize(Dict(str, Tensor) tensors, *, Dict(str, str)? metadata=None, int num_threads=0) -> Tensor"));
  // Bytes of any file, into contiguous tensors of uint8: as many as fill each, from its offset in the file on.
  library.def(
      schema("start_read_(Tensor(a!)[] buffers, int[] offsets, str file, *, int num_threads=0, bool use_pinned_memory=True, "
             "bool? use_direct_io=None, __torch__.torch.classes.veturbo.IOHelper? helper=None, "
             "__torch__.torch.classes.veturbo.Cipher? cipher=None) -> __torch__.torch.classes.veturbo.LoadJob"));
  // A file of such tensors, which fill it without holes. What those in `late`, numbers of buffers, hold is not looked at before
  // the job is told that it is ready(): they may be filled meanwhile.
  library.def(
      schema("start_write(Tensor[] buffers, int[] offsets, str file, *, int[] late=[], int num_threads=0, "
             "__torch__.torch.classes.veturbo.IOHelper? helper=None, __torch__.torch.classes.veturbo.Cipher? cipher=None) "
             "-> __torch__.torch.classes.veturbo.SaveJob"));
  // The CRC-32 of each.
  library.def(
      schema("start_checksum(Tensor[] buffers, *, int num_threads=0, __torch__.torch.classes.veturbo.IOHelper? helper=None) "
             "-> __torch__.torch.classes.veturbo.ChecksumJob"));
  // Such tensors, in the memory that suits to read these bytes, which come in the order of the file.
  library.def(schema("empty_buffers(int[] offsets, int[] sizes, Device device) -> Tensor[]"));

  // Whether the file is one of the operating system's, which other libraries reach by its path, too.
  library.def(schema("is_local(str file) -> bool"));
  // Whether the file system of an open file is of this machine alone, so that whoever looks sees its locks.
  library.def(schema("is_on_local_file_system(int descriptor) -> bool"));
  // Ends the connections to storage that nobody uses, which exit() does as well: for processes that end without it.
  library.def(schema("disconnect() -> ()"));
  library.def(schema("read_metadata(str file, __torch__.torch.classes.veturbo.Cipher? cipher=None) -> Dict(str, str)"));
  // The file's own dtypes and shapes ("F32"; two elements a byte for F4), in the order of the data.
  library.def(
      schema("list_tensors(str file, __torch__.torch.classes.veturbo.Cipher? cipher=None) "
             "-> (str[] names, str[] dtypes, int[][] shapes)"));

  // Of what is encrypted in it, if it is.
  library.def(schema("file_size(str file, __torch__.torch.classes.veturbo.Cipher? cipher=None) -> int"));
  // "mode" and "file_timestamp" of a file's cipher header; empty without one.
  library.def(schema("read_cipher_header(str file) -> Dict(str, str)"));

  // What the calling thread's last call of ours failed with, told once; see errors.h.
  library.def(schema("last_error() -> (str kind, int errno, str file, str tensor, int offset, str cause)"));
  // The versions that this library was built for: "torch", and "cuda" ("" in a build without it).
  library.def(schema("build_info() -> Dict(str, str)"));
}

}  // namespace veturbo
