"""The compiled library: where it is, and that it fits the PyTorch that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

#: Path of the shared library, for ``torch.ops.load_library`` in programs that do not import this package.
library_path = str(Path(__file__).parent / "lib" / "libveturboio.so")

_REINSTALL = "pip install --no-build-isolation --force-reinstall --no-deps veturboio (from its source)"


def _release(version: str) -> str:
    """The part of a version that decides over the C++ interface: "2.13.0" of "2.13.0+cpu"."""
    return version.partition("+")[0]


def _load_library() -> Any:
    if not Path(library_path).exists():
        raise ImportError(f"{library_path} is missing: the package was not built. Run: {_REINSTALL}")
    try:
        torch.ops.load_library(library_path)
    except OSError as error:
        raise ImportError(
            f"{library_path} does not load into PyTorch {torch.__version__}; most likely it was built against another one. "
            f"Run: {_REINSTALL}. The loader says: {error}"
        ) from error
    built_for = torch.ops.veturbo.build_info()["torch"]
    if _release(built_for) != _release(torch.__version__):
        raise ImportError(
            f"veturboio was built against PyTorch {built_for}, but {torch.__version__} is installed, and PyTorch's C++ "
            f"interface changes between releases. Run: {_REINSTALL}"
        )
    for name in _OPERATORS_OF_A_LOAD:
        getattr(torch.ops.veturbo, name)
    return torch.ops.veturbo


# PyTorch takes up to a tenth of a millisecond to find an operator, once in a process: now, while a model's user imports, and not
# when the first small file is loaded.
_OPERATORS_OF_A_LOAD = ("is_local", "last_error", "start_open_model", "start_load_models")

#: The operators, ``torch.ops.veturbo``.
ops = _load_library()
