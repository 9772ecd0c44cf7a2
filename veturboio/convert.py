"""Converts a file of torch.save to safetensors: ``python -m veturboio.convert -i model.pt -o model.safetensors``.

Exit status: 0 when it is done, 1 when it cannot be (with the reason on standard error), 2 for wrong usage, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

import veturboio
from veturboio._arguments import local_path
from veturboio._cipher import is_switched_on
from veturboio._commands import run_command
from veturboio._errors import FileFormatError, python_errors
from veturboio._files import exists, is_local
from veturboio._library import ops
from veturboio._progress import progress_bar
from veturboio._save import write_file
from veturboio._torch_files import load_torch_file

# Where training frameworks put the weights in their checkpoints, the likeliest first.
_NESTED_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
# transformers refuses a file that does not say what it was written by.
_METADATA = {"format": "pt"}


class ConvertError(ValueError):
    """The file cannot be converted as asked."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with these arguments (None: the process's own) and returns its exit status."""
    options = _parser().parse_args(arguments)
    return run_command("convert", lambda: _convert(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m veturboio.convert",
        description="Converts a file of torch.save (of any age) to safetensors. The file is read with weights_only=True: code "
        "that it may contain is never run. Memory: about one copy of the model. With VETURBOIO_USE_CIPHER=1 the output is "
        "encrypted, by a key from the environment, the trusted service or the KMS; the input never is.",
    )
    parser.add_argument("-i", "--input", required=True, help="the file of torch.save")
    parser.add_argument("-o", "--output", required=True, help="the safetensors file to write")
    parser.add_argument(
        "-d", "--dry-run", action="store_true", help="read the input and say what would be written, write nothing"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists; without this it is refused")
    parser.add_argument(
        "--enable-to-valid-state-dict",
        action="store_true",
        help="find the state dict inside a checkpoint (under "
        + ", ".join(f'"{key}"' for key in _NESTED_KEYS)
        + ", or the only dict with tensors) and leave out, listing them, entries that are no tensors",
    )
    parser.add_argument(
        "--validate-result", action="store_true", help="read the output back and compare every tensor bit for bit with the input"
    )
    parser.add_argument(
        "--use-direct-io",
        action="store_true",
        help="validate what the disk holds instead of what the page cache does: reads past it, into one more copy of the model",
    )
    return parser


def _convert(options: argparse.Namespace) -> None:
    started = time.monotonic()
    if not options.overwrite and not options.dry_run and exists(options.output):
        raise ConvertError(f"{options.output} exists: pass --overwrite to replace it")
    state_dict = _read(options.input)
    if options.enable_to_valid_state_dict:
        state_dict = _to_valid_state_dict(state_dict)
    _check(state_dict)
    total = sum(tensor.nbytes for tensor in state_dict.values())
    summary = f"{options.input} -> {options.output}: {len(state_dict)} tensors, {total / 1e9:.3f} GB"
    if options.dry_run:
        print(f"{summary} (dry run, nothing was written)")
        return
    with progress_bar("converting") as report:
        write_file(
            state_dict,
            options.output,
            force_save_shared_tensor=True,
            force_clone_shared_tensor=True,
            metadata=_METADATA,
            progress=report,
        )
    print(f"{summary} in {time.monotonic() - started:.1f} s")
    if options.validate_result:
        _validate(state_dict, options.output, use_direct_io=options.use_direct_io)
        print(f"{options.output}: validated, all {len(state_dict)} tensors are the input's, bit for bit")


def _read(file: str) -> Any:
    # Mapped where that can be, so that no copy but the page cache's is made; the formats before PyTorch 1.6 cannot be.
    mapped = is_local(file) and zipfile.is_zipfile(local_path(file))  # raises nothing for a file that is missing
    if not mapped:
        _refuse_safetensors(file)
    return load_torch_file(file, torch.device("cpu"), {"cipher": None}, enable_fast_mode=True, mmap=mapped, weights_only=True)


def _refuse_safetensors(file: str) -> None:
    with python_errors():
        ops.file_size(file)  # raises what open() would
    try:
        ops.list_tensors(file)
    except (RuntimeError, ValueError):
        return
    raise FileFormatError(f"{file}: is a safetensors file already", local_path(file))


def _to_valid_state_dict(loaded: Any) -> dict[str, torch.Tensor]:
    """The tensors of the state dict in a checkpoint, however deep; prints what is left out."""
    found, path = _find_state_dict(loaded)
    state_dict = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if path:
        print(f"state dict found under {_subscripts(path)}")
    dropped = []
    level = loaded
    for depth in range(len(path) + 1):
        kept = {path[depth]} if depth < len(path) else state_dict.keys()
        dropped += [f"{_subscripts([*path[:depth], key])} ({type(level[key]).__name__})" for key in level if key not in kept]
        level = level[path[depth]] if depth < len(path) else level
    if dropped:
        print(f"left out: {', '.join(dropped)}")
    return state_dict


def _find_state_dict(value: Any) -> tuple[Mapping[str, Any], list[str]]:
    """The mapping that holds the model's tensors, and the keys that lead to it."""
    if not isinstance(value, Mapping):
        raise ConvertError(f"the file holds a {type(value).__name__}, not a state dict")
    nested = [key for key, inner in value.items() if isinstance(inner, Mapping) and _has_tensors(inner)]
    known = [key for key in _NESTED_KEYS if key in nested]
    if not known and any(isinstance(inner, torch.Tensor) for inner in value.values()):
        return value, []
    if not nested:
        raise ConvertError("the file holds no tensors")
    if not known and len(nested) > 1:
        raise ConvertError(f"several entries hold tensors and none has a name that is known: {', '.join(map(str, nested))}")
    key = known[0] if known else nested[0]
    found, path = _find_state_dict(value[key])
    return found, [key, *path]


def _subscripts(path: list[str]) -> str:
    return "".join(f"[{key!r}]" for key in path)


def _has_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_tensors(inner) for inner in value.values())
    return isinstance(value, torch.Tensor)


def _check(state_dict: Any) -> None:
    if not isinstance(state_dict, Mapping):
        raise ConvertError(f"the file holds a {type(state_dict).__name__}, not a state dict")
    others = [f"{name} ({type(value).__name__})" for name, value in state_dict.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ConvertError(
            f"these entries are not tensors: {', '.join(others)}. Pass --enable-to-valid-state-dict to find the state dict "
            "inside and leave the rest out"
        )


def _validate(expected: Mapping[str, torch.Tensor], file: str, *, use_direct_io: bool) -> None:
    # A file that is encrypted or far away cannot be mapped: that is one more copy of the model.
    mapped = not use_direct_io and not is_switched_on() and is_local(file)
    found = veturboio.load(file, mmap=mapped, use_direct_io=use_direct_io or None)
    if found.keys() != expected.keys():
        differing = sorted(map(str, found.keys() ^ expected.keys()))
        raise ConvertError(f"{file}: validation failed, these names are only on one side: {', '.join(differing)}")
    differing = [name for name, tensor in expected.items() if not _same_bits(tensor, found[name])]
    if differing:
        raise ConvertError(f"{file}: validation failed, these tensors differ: {', '.join(differing)}")


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    # As bytes: a NaN differs from itself, and some dtypes have no comparison.
    plain = a.detach().resolve_conj().resolve_neg().contiguous()
    return torch.equal(plain.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


if __name__ == "__main__":
    sys.exit(main())
