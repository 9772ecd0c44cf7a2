"""Errors are those that Python's users expect, and say what is wrong, where."""

from __future__ import annotations

import errno
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fresh_process import environment
from safetensors_files import entry, with_header, write_zeros

import veturboio

READERS = {
    "load": veturboio.load,
    "load with mmap": lambda file: veturboio.load(file, mmap=True),
    "load in place": lambda file: veturboio.load(file, state_dict={}),
    "load_to_shmem": veturboio.load_to_shmem,
    "read_metadata": lambda file: operator("read_metadata", file),
    "list_tensors": lambda file: operator("list_tensors", file),
}
WRITERS = {
    "save_file": lambda file: veturboio.save_file({"w": torch.ones(2)}, file),
    "save_model": lambda file: veturboio.save_model(torch.nn.Linear(1, 1), file),
    "save_pt": lambda file: veturboio.save_pt({"w": torch.ones(2)}, file),
}


def operator(name, file):
    from veturboio._errors import python_errors

    with python_errors():
        return getattr(torch.ops.veturbo, name)(str(file))


def each(functions):
    return pytest.mark.parametrize("function", functions.values(), ids=functions.keys())


@each({**READERS, **WRITERS})
def test_a_missing_file_or_directory_is_a_file_not_found_error(tmp_path, function):
    path = tmp_path / "missing" / "model.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        function(path)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(path)
    assert str(path) in str(caught.value)


@each({**{name: reader for name, reader in READERS.items() if not name.startswith("load ") and name != "load"}, **WRITERS})
def test_a_directory_is_an_is_a_directory_error(tmp_path, function):
    with pytest.raises(IsADirectoryError) as caught:
        function(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, str(tmp_path))


@each({**READERS, **WRITERS})
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, function):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file") as caught:
        function(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(path))


@each({**READERS, **WRITERS})
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null"])
def test_a_device_is_refused(device, function):
    with pytest.raises(OSError, match="not a regular file") as caught:
        function(Path(device))
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, device)


@each({**READERS, **WRITERS})
def test_a_path_through_a_file_is_a_not_a_directory_error(tmp_path, function):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError) as caught:
        function(tmp_path / "file" / "model")
    assert caught.value.filename == str(tmp_path / "file" / "model")


def test_a_file_that_may_not_be_read_or_replaced_is_a_permission_error(shm_path):
    # Root may do everything: where the tests run as root this is tried as somebody else, who may not be allowed into Python's own
    # folder. So everything is imported before the user is changed.
    shm_path.chmod(0o755)
    locked, folder = shm_path / "locked.safetensors", shm_path / "folder"
    veturboio.save_file({"w": torch.ones(2)}, locked)
    locked.chmod(0)
    folder.mkdir(0o555)
    code = """
import errno, os, sys
import torch
import veturboio
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
locked, folder = sys.argv[1:]
new = os.path.join(folder, "new.safetensors")
for name, call in {
    locked: lambda: veturboio.load(locked),
    locked + " ": lambda: veturboio.load_to_shmem(locked),
    locked + "  ": lambda: veturboio.save_file({"w": torch.ones(2)}, locked),
    locked + "   ": lambda: veturboio.save_pt({"w": torch.ones(2)}, locked),
    new: lambda: veturboio.save_file({"w": torch.ones(2)}, new),
    new + " ": lambda: veturboio.save_pt({"w": torch.ones(2)}, new),
}.items():
    try:
        call()
    except PermissionError as error:
        assert error.errno == errno.EACCES and error.filename == name.strip(), (name, error.filename)
        print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(locked), str(folder)], capture_output=True, text=True, env=environment()
    )
    assert done.stdout.split() == ["refused"] * 6, done.stderr


@each({name: READERS[name] for name in ["load", "load with mmap", "load in place", "read_metadata", "list_tensors"]})
def test_the_parts_of_a_format_error_are_told_apart(tmp_path, function):
    path = tmp_path / "model.safetensors"
    path.write_bytes(with_header({"a": entry("U8", [2], 0, 2), "b": entry("F32", [1], 2, 7)}, b"\0" * 7))
    with pytest.raises(veturboio.FileFormatError) as caught:
        function(path)
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.filename, error.tensor) == (str(path), "b")
    assert error.offset == path.stat().st_size - 5  # where b's data begin
    assert str(error) == (f'{path}: tensor "b": shape [1] of F32 is 4 bytes, but data_offsets span 5 (at byte {error.offset})')


def test_a_format_error_survives_pickling(tmp_path):
    (tmp_path / "model").write_bytes(b"short")
    with pytest.raises(veturboio.FileFormatError) as caught:
        veturboio.load(tmp_path / "model")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is veturboio.FileFormatError
    assert str(copy) == str(caught.value)
    assert (copy.filename, copy.tensor, copy.offset) == (str(tmp_path / "model"), None, 5)


U8 = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'


def fields(dtype='"U8"', shape="[1]", offsets="[0,1]"):
    return f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'


# What each file is, its bytes, and the text that says what is wrong with it.
BROKEN_FILES = {
    "empty": (b"", "not a safetensors file: 0 bytes cannot hold the 8-byte length of a header"),
    "shorter than a length": (b"\1\0\0\0\0\0\0", "not a safetensors file: 7 bytes cannot hold the 8-byte length"),
    "header longer than the limit": (
        (100_000_001).to_bytes(8, "little") + b"{}",
        "it claims a header of 100000001 bytes, the most is 100000000",
    ),
    "header longer than the file": (
        (3).to_bytes(8, "little") + b"{}",
        "the header is 3 bytes long but the file has only 2 after its length: it is cut short",
    ),
    "no header": (with_header(b""), "the header is not valid JSON"),
    "only white space": (with_header(b"   "), "the header is not valid JSON"),
    "header not an object": (with_header(b"[]"), "its header does not begin with '{'"),
    "byte order mark": (with_header(b"\xef\xbb\xbf{}"), "its header does not begin with '{'"),
    "something before the object": (with_header(b"x{}"), "its header does not begin with '{'"),
    "something after the object": (with_header(b"{}x"), "there is x where there should be nothing more"),
    "header cut short": (with_header(b'{"a":'), "the header is not valid JSON"),
    "name not UTF-8": (with_header(b'{"\xff":' + U8.encode() + b"}", b"\0"), "not valid JSON: a string is not UTF-8"),
    "half a surrogate pair": (with_header('{"\\ud800":' + U8 + "}", b"\0"), "a string has half a surrogate pair"),
    "entry not an object": (with_header('{"a":[]}'), '"a": its entry must be an object, not an array'),
    "entry a string": (with_header('{"a":"U8"}'), '"a": its entry must be an object, not a string'),
    "entry without dtype": (with_header('{"a":{"shape":[1],"data_offsets":[0,1]}}', b"\0"), "its entry has no dtype"),
    "entry without shape": (with_header('{"a":{"dtype":"U8","data_offsets":[0,1]}}', b"\0"), "its entry has no shape"),
    "entry without data_offsets": (with_header('{"a":{"dtype":"U8","shape":[1]}}', b"\0"), "its entry has no data_offsets"),
    "field twice": (with_header(fields(shape='[1],"shape":[1]'), b"\0"), "its shape stands twice"),
    "unknown dtype": (with_header(fields(dtype='"F7"'), b"\0"), 'unknown dtype "F7"'),
    "dtype in lower case": (with_header(fields(dtype='"u8"'), b"\0"), 'unknown dtype "u8"'),
    "dtype not a string": (with_header(fields(dtype="8"), b"\0"), "dtype must be a string, not a number"),
    "shape not an array": (with_header(fields(shape="1"), b"\0"), "shape must be an array of non-negative integers"),
    "shape nested": (with_header(fields(shape="[[1]]"), b"\0"), "shape must be an array of non-negative integers"),
    "negative dimension": (with_header(fields(shape="[-1]"), b"\0"), "not of a negative number"),
    "fractional dimension": (with_header(fields(shape="[1.0]"), b"\0"), "not of the number 1.0, which is not a plain 64-bit"),
    "dimension with an exponent": (with_header(fields(shape="[1e0]"), b"\0"), "not of the number 1e0, which is not a plain"),
    "dimension beyond 64 bits": (
        with_header(fields(shape="[18446744073709551616]"), b"\0"),
        "which is not a plain 64-bit integer",
    ),
    "dimension null": (with_header(fields(shape="[null]"), b"\0"), "not of null"),
    "negative offset": (with_header(fields(offsets="[-1,0]"), b"\0"), "data_offsets must be an array of 2 non-negative integers"),
    "fractional offset": (with_header(fields(offsets="[0,1.0]"), b"\0"), "data_offsets must be an array of 2 non-negative"),
    "one offset": (with_header(fields(offsets="[0]"), b"\0"), "data_offsets has 1 numbers, it must have 2"),
    "three offsets": (with_header(fields(offsets="[0,1,1]"), b"\0"), "data_offsets has 3 numbers, it must have 2"),
    "offsets the wrong way round": (with_header(fields(shape="[0]", offsets="[1,0]"), b"\0"), "end before they begin"),
    "product of the shape overflows": (
        with_header(fields(shape="[4294967296,4294967296]"), b"\0"),
        "the size of shape [4294967296, 4294967296] of U8 overflows 64 bits",
    ),
    "bits do not fill bytes": (with_header(fields(dtype='"F4"'), b"\0"), "of F4 overflows 64 bits or does not fill whole bytes"),
    "shape and offsets disagree": (with_header(fields(shape="[2]"), b"\0"), "[2] of U8 is 2 bytes, but data_offsets span 1"),
    "name twice": (with_header(f'{{"a":{U8},"a":{U8}}}', b"\0"), '"a": the name stands twice in the header'),
    "name twice, once escaped": (with_header(f'{{"a":{U8},"\\u0061":{U8}}}', b"\0"), '"a": the name stands twice'),
    "metadata twice": (with_header('{"__metadata__":{},"__metadata__":{}}'), '"__metadata__": the name stands twice'),
    "metadata key twice": (with_header('{"__metadata__":{"k":"1","k":"2"}}'), 'the key "k" stands twice in __metadata__'),
    "metadata not an object": (with_header('{"__metadata__":[]}'), "__metadata__ must be an object of strings, not an array"),
    "metadata value not a string": (with_header('{"__metadata__":{"k":1}}'), 'the value of "k" in __metadata__ must be a string'),
    "first tensor not at 0": (with_header(fields(offsets="[1,2]"), b"\0\0"), "its data begins at 1 and leaves a hole after 0"),
    "hole": (
        with_header({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"\0\0\0"),
        '"b": its data begins at 2 and leaves a hole after 1',
    ),
    "overlap": (
        with_header({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"\0\0\0"),
        '"b": its data begins at 1, inside the tensor before it, which ends at 2',
    ),
    "data cut short": (
        with_header({"a": entry("U8", [4], 0, 4)}, b"\0\0\0"),
        "the tensors end at 4 but the file has only 3 bytes",
    ),
    "trailing bytes": (with_header({"a": entry("U8", [1], 0, 1)}, b"\0\0"), "the file has 1 bytes after its last tensor"),
    "trailing bytes without tensors": (with_header("{}", b"\0"), "the file has 1 bytes after its last tensor"),
}


@pytest.mark.parametrize(("file", "text"), BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_a_broken_file_is_refused_with_a_text_of_its_own(tmp_path, file, text):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(file)
    for name in ["load", "load with mmap", "load in place", "read_metadata", "list_tensors"]:
        with pytest.raises(veturboio.FileFormatError, match=re.escape(text)) as caught:
            READERS[name](path)
        assert str(caught.value).startswith(f"{path}: ")
        assert caught.value.filename == str(path)
        assert 0 <= caught.value.offset <= len(file)


# What a reader must take although no writer makes it.
ODD_FILES = {
    "length that is no multiple of 8": (with_header(fields()[:-1] + " }", b"\7"), [7]),
    "white space before and after": (with_header(" \n\t\r" + fields() + "\n  \t", b"\7"), [7]),
    "unknown fields": (with_header(fields(offsets='[0,1],"note":{"deep":[1,{"x":[-1.5,null,"y"]}]},"n":2'), b"\7"), [7]),
    "fields in another order": (with_header('{"a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}}', b"\7"), [7]),
    "escaped name": (with_header('{"\\u0061":' + U8 + "}", b"\7"), [7]),
    "zero-size product with a huge dimension": (with_header(fields(shape="[0,9223372036854775807]", offsets="[0,0]")), []),
}


@pytest.mark.parametrize(("file", "values"), ODD_FILES.values(), ids=ODD_FILES.keys())
def test_an_odd_file_that_keeps_the_rules_is_read(tmp_path, file, values):
    (tmp_path / "odd").write_bytes(file)
    for mmap in False, True:
        assert veturboio.load(tmp_path / "odd", mmap=mmap)["a"].flatten().tolist() == values


def test_entries_in_any_order_are_read(tmp_path):
    entries = {"z": entry("U8", [2], 1, 3), "m": entry("U8", [0], 1, 1), "a": entry("U8", [1], 0, 1)}
    (tmp_path / "model").write_bytes(with_header(entries, b"\1\2\3"))
    loaded = veturboio.load(tmp_path / "model")
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {"a": [1], "m": [], "z": [2, 3]}


def test_a_dimension_that_pytorch_cannot_have_is_refused(tmp_path):
    (tmp_path / "model").write_bytes(with_header(fields(shape="[0,9223372036854775808]", offsets="[0,0]")))
    path = str(tmp_path / "model")
    expected = re.escape(f'{path}: tensor "a": a dimension is larger than PyTorch\'s 2^63 - 1')
    with pytest.raises(veturboio.FileFormatError, match=expected):
        veturboio.load(path)
    with pytest.raises(ValueError, match=expected):
        torch.ops.veturbo.list_tensors(path)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(shm_path):
    # Its header has been read when start_load returns; of the data a thread can have read no more than what a moment allows.
    path = shm_path / "model.safetensors"
    write_zeros(path, num_tensors=1, bytes_each=1 << 30)
    job = torch.ops.veturbo.start_load(str(path), num_threads=1)
    os.truncate(path, 4096)
    from veturboio._jobs import finish

    with pytest.raises(OSError, match="it was cut short while it was read") as caught:
        finish(job)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))


def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(shm_path):
    path = shm_path / "model.safetensors"
    write_zeros(path, num_tensors=1, bytes_each=256 << 20)
    job = torch.ops.veturbo.start_load(str(path), num_threads=1)
    veturboio.save_file({"layer.0": torch.ones(256 << 20, dtype=torch.uint8)}, path)
    loaded = job.result()["layer.0"]
    assert len(loaded) == 256 << 20
    assert not loaded.any()
    assert veturboio.load(path)["layer.0"].all()


def test_a_path_that_is_not_utf8_stands_in_errors_as_python_writes_it(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.safetensors"
    with pytest.raises(FileNotFoundError) as missing:
        veturboio.load(path)
    assert missing.value.filename == os.fsdecode(path)
    with open(path, "wb"):  # noqa: PTH123  pathlib takes no bytes
        pass
    with pytest.raises(veturboio.FileFormatError, match=r"\\xff\.safetensors: not a safetensors file") as broken:
        veturboio.load(path)
    assert broken.value.filename == os.fsdecode(path)


def test_a_nul_in_a_name_does_not_cut_the_text_off(tmp_path):
    (tmp_path / "model").write_bytes(with_header('{"a\\u0000b":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}', b"\0"))
    with pytest.raises(veturboio.FileFormatError, match=r'"a\\x00b": shape \[2\] of U8 is 2 bytes') as caught:
        veturboio.load(tmp_path / "model")
    assert caught.value.tensor == "a\0b"


def test_an_error_of_pytorchs_own_is_not_mistaken_for_an_earlier_one_of_ours(tmp_path):
    from veturboio._errors import python_errors

    with pytest.raises(FileNotFoundError), python_errors():
        torch.ops.veturbo.read_metadata(str(tmp_path / "missing"))
    with pytest.raises(RuntimeError, match="Expected a value of type 'str'"), python_errors():
        torch.ops.veturbo.read_metadata(7)
    # Nor where nobody asked after the earlier one.
    with pytest.raises(RuntimeError, match="No such file"):
        torch.ops.veturbo.read_metadata(str(tmp_path / "missing"))
    with pytest.raises(RuntimeError, match="Expected a value of type 'str'"), python_errors():
        torch.ops.veturbo.read_metadata(7)


def test_the_operators_throw_what_pytorch_has_and_name_the_file(tmp_path):
    path = str(tmp_path / "model")
    for call in torch.ops.veturbo.load_file, torch.ops.veturbo.read_metadata, torch.ops.veturbo.list_tensors:
        with pytest.raises(RuntimeError, match=f"^{re.escape(path)}: No such file or directory"):
            call(path)
    (tmp_path / "model").write_bytes(b"short")
    for call in torch.ops.veturbo.load_file, torch.ops.veturbo.read_metadata, torch.ops.veturbo.list_tensors:
        with pytest.raises(ValueError, match=f"^{re.escape(path)}: not a safetensors file"):
            call(path)


def test_a_model_that_does_not_fit_is_a_memory_error(shm_path):
    # As large as the address space, so that it fits nowhere, however much memory the system promises.
    path = shm_path / "model.safetensors"
    write_zeros(path, num_tensors=2, bytes_each=1 << 46)
    with pytest.raises(MemoryError, match=r"not enough memory to map \d{15} bytes") as caught:
        veturboio.load(path)
    assert str(path) in str(caught.value)
