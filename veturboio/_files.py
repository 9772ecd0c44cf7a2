"""What is asked about files without reading them."""

from __future__ import annotations

import os
from pathlib import Path

from veturboio._arguments import FilePath, local_path, operator_path
from veturboio._errors import python_errors
from veturboio._library import ops


def is_local(file: FilePath) -> bool:
    """Whether other libraries reach the file by its path, too."""
    # What the operator says of most files, which takes a small model's first load a tenth of a millisecond.
    if isinstance(file, str) and "://" not in file and "VETURBOIO_USE_SFCS_SDK" not in os.environ:
        return True
    with python_errors():
        local: bool = ops.is_local(operator_path(file))
    return local


def exists(file: FilePath) -> bool:
    """Whether there is anything of that name."""
    if is_local(file):
        return Path(local_path(file)).exists()
    try:
        with python_errors():
            ops.file_size(operator_path(file))
    except FileNotFoundError:
        return False
    except IsADirectoryError:
        return True
    return True
