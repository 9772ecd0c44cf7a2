"""Builds the one shared library that veturboio loads.

The library is no Python module: it registers operators with PyTorch when it is loaded, uses nothing of Python's C interface, and
so serves every Python version. PyTorch's C++ interface, however, changes with each of its releases: the library is built against
the PyTorch that is installed, which is why the package is installed with --no-build-isolation.

`python setup.py get_libcfs` fetches libcloudfs.so, the client library of SFCS, into veturboio/lib. What is installed from here
afterwards has it; an sdist never does. It needs no PyTorch, and may as well come after the installation: python -m
veturboio.get_libcfs.

Environment:
  VETURBOIO_CUDA=0|1    build without or with the CUDA kernels; by default with them when PyTorch has CUDA and nvcc is found
  VETURBOIO_WERROR=1    warnings are errors (for development)
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ModuleNotFoundError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).parent
LIBRARY = "veturboio.lib.libveturboio"
LIBCFS = Path("veturboio", "lib", "libcloudfs.so")
NO_TORCH = (
    "veTurboIO is compiled against the PyTorch that it will run with, and there is none in this environment. "
    "Install PyTorch first, then: pip install --no-build-isolation ."
)


class BuildNeedsTorch(build_ext):
    """Stands in where PyTorch is missing, so that what compiles nothing (an sdist) works without it."""

    def run(self) -> None:
        raise SystemExit(NO_TORCH)


class GetLibcfs(Command):
    description = "fetch libcloudfs.so, the client library of SFCS, into veturboio/lib: then pip install . takes it along"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ("src=", None, "an https:// or file:// url, or a path [default: where Volcano Engine publishes it]"),
        ("dst=", None, f"the file to write [default: {LIBCFS}]"),
    ]

    def initialize_options(self) -> None:
        self.src: str | None = None
        self.dst: str | None = None

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        # The package cannot be imported before it is built, nor without PyTorch, and this one module of it needs neither: it is
        # imported from a package in its place that has the same modules and runs nothing.
        package = ModuleType("veturboio")
        package.__path__ = [str(ROOT / "veturboio")]
        sys.modules["veturboio"] = package
        from veturboio.get_libcfs import GetLibcfsError, describe, get_library

        try:
            print(describe(get_library(self.src, self.dst)))
        except (GetLibcfsError, OSError) as error:
            raise SystemExit(f"get_libcfs: {error}") from None


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel for the platform and for every Python 3."""

    def run(self) -> None:
        if (ROOT / LIBCFS).exists():
            self.warn(f"{LIBCFS} goes into the wheel: install it, and do not publish it: that library is not ours to pass on")
        else:
            # A build folder keeps what was there when an earlier wheel was built, and all of it goes into this one.
            (Path(self.get_finalized_command("build").build_lib) / LIBCFS).unlink(missing_ok=True)
        super().run()

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def version() -> str:
    text = (ROOT / "veturboio" / "_version.py").read_text()
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert match is not None
    return match.group(1)


def sources() -> list[str]:
    return (ROOT / "csrc" / "sources.txt").read_text().split()


def headers() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.h"))]


def wants_cuda() -> bool:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    choice = os.environ.get("VETURBOIO_CUDA", "")
    if choice not in ("", "0", "1"):
        raise SystemExit(f"VETURBOIO_CUDA={choice}: give 0 or 1")
    nvcc = CUDA_HOME is not None and shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin")) is not None
    if choice == "1":
        if torch.version.cuda is None:
            raise SystemExit(f"VETURBOIO_CUDA=1, but PyTorch {torch.__version__} is built without CUDA")
        if not nvcc:
            raise SystemExit("VETURBOIO_CUDA=1, but nvcc was not found: set CUDA_HOME to the CUDA toolkit")
        return True
    return choice == "" and torch.version.cuda is not None and nvcc


def library() -> tuple[Extension, Any]:
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension, include_paths

    # PyTorch's headers are full of what -Wextra warns of. gcc ignores -I for a folder that is given with -isystem as well, and
    # warns of nothing that stands in one of those.
    torch_headers = [flag for path in include_paths() for flag in ("-isystem", path)]
    cxx = [*torch_headers, "-std=c++20", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wpedantic"]
    if os.environ.get("VETURBOIO_WERROR") == "1":
        cxx.append("-Werror")
    options: dict[str, Any] = {
        "include_dirs": [str(ROOT / "csrc"), str(ROOT / "csrc" / "core")],
        "depends": [*headers(), "csrc/sources.txt", "setup.py"],
        "libraries": ["curl", "ssl", "crypto"],
        "py_limited_api": True,  # do not link libtorch_python
    }
    if wants_cuda():
        # For every architecture that nvcc knows, unless told otherwise: PyTorch's choice is that of the GPU in this machine, and
        # a machine that builds often has none.
        architectures = [] if os.environ.get("TORCH_CUDA_ARCH_LIST") else ["-arch=all-major"]
        nvcc = ["-std=c++20", "-O3", *architectures]
        options["extra_compile_args"] = {"cxx": [*cxx, "-DVETURBO_WITH_CUDA"], "nvcc": nvcc}
        extension = CUDAExtension(LIBRARY, sources(), **options)
    else:
        options["extra_compile_args"] = {"cxx": cxx}
        extension = CppExtension(LIBRARY, [path for path in sources() if not path.endswith(".cu")], **options)
    return extension, BuildExtension.with_options(no_python_abi_suffix=True)


try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    extension, build_extension = Extension(LIBRARY, sources()), BuildNeedsTorch
else:
    extension, build_extension = library()

(ROOT / "veturboio" / "lib").mkdir(exist_ok=True)  # build_ext --inplace copies into it and does not make it

setup(
    version=version(),
    ext_modules=[extension],
    cmdclass={"build_ext": build_extension, "bdist_wheel": AnyPythonWheel, "get_libcfs": GetLibcfs},
)
