// A program without Python: loads the library, saves and loads a model through the operators, and runs a scripted module that
// does the same. Usage: libtorch_program LIBRARY SCRIPTED_MODULE DIRECTORY. Built and run by tests/python/test_cpp_program.py.
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <torch/script.h>

#include <iostream>
#include <string>

namespace {

using TensorDict = c10::Dict<std::string, at::Tensor>;

void require(bool condition, const std::string& what) {
  if (!condition) {
    std::cerr << "failed: " << what << '\n';
    std::exit(1);
  }
}

c10::OperatorHandle find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

// Calls an operator with its leading arguments given and the others at their defaults.
torch::jit::Stack call(const char* name, torch::jit::Stack stack) {
  const c10::OperatorHandle handle = find_operator(name);
  const auto& arguments = handle.schema().arguments();
  for (size_t i = stack.size(); i < arguments.size(); ++i) {
    stack.push_back(arguments[i].default_value().value());
  }
  handle.callBoxed(stack);
  return stack;
}

TensorDict to_tensors(const c10::IValue& value) {
  return c10::impl::toTypedDict<std::string, at::Tensor>(value.toGenericDict());
}

}  // namespace

int main(int argc, char** argv) {
  require(argc == 4, "three arguments");
  require(dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) != nullptr, "the library loads");
  const std::string file = std::string(argv[3]) + "/model.safetensors";
  const std::string copy = std::string(argv[3]) + "/copy.safetensors";

  TensorDict tensors;
  tensors.insert("weight", at::arange(12, at::kFloat).reshape({3, 4}));
  tensors.insert("steps", at::full({}, 7, at::kLong));
  call("veturbo::save_file", {tensors, file});

  const TensorDict loaded = to_tensors(call("veturbo::load_file", {file}).back());
  require(loaded.size() == 2, "both tensors are there");
  require(at::equal(loaded.at("weight"), tensors.at("weight")), "the weight is the same");
  require(loaded.at("steps").item<int64_t>() == 7, "the scalar is the same");

  TensorDict existing;
  existing.insert("weight", at::zeros({4, 3}).t());
  existing.insert("steps", at::zeros({}, at::kLong));
  call("veturbo::load_file_", {existing, file});
  require(at::equal(existing.at("weight"), tensors.at("weight")), "the weight was loaded in place");

  torch::jit::Module module = torch::jit::load(argv[2]);
  const TensorDict scripted = to_tensors(module.forward({file, copy}));
  require(at::equal(scripted.at("weight"), tensors.at("weight")), "the scripted module loads the same");
  require(to_tensors(call("veturbo::load_file", {copy}).back()).size() == 2, "the scripted module has saved");

  try {
    call("veturbo::load_file", {std::string("/no/such/file")});
    require(false, "a missing file is an error");
  } catch (const c10::Error& error) {
    require(error.msg() == "/no/such/file: No such file or directory", "the error says what is wrong: " + error.msg());
  }
  std::cout << "passed\n";
}
