"""Numbers in a file's header that no file has: refused at once and told of plainly, however the file is read."""

from __future__ import annotations

import pytest
import torch
from fresh_process import run_python
from safetensors_files import entry, with_header

import veturboio

WAYS = """
import resource, sys, torch, veturboio, veturboio.safetensors.torch
from veturboio import inspect

ways = {
    "load": lambda file: veturboio.load(file),
    "mapped": lambda file: veturboio.load(file, mmap=True),
    "slow": lambda file: veturboio.load(file, enable_fast_mode=False),
    "in place": lambda file: veturboio.load(file, state_dict={"w": torch.zeros(2, dtype=torch.uint8)}),
    "async": lambda file: veturboio.load_async(file).result(),
    "into": lambda file: veturboio.load_into(torch.nn.Linear(2, 2), file),
    "stream": lambda file: dict(veturboio.stream(file)),
    "open": lambda file: veturboio.open(file).tensors(),
    "slice": lambda file: veturboio.open(file).slice("w")[:],
    "inspect": lambda file: inspect.describe(file, verify=True),
    "drop-in": lambda file: veturboio.safetensors.torch.load_file(file),
}
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), -1))
for name in sys.argv[2:] or ways:
    try:
        ways[name](sys.argv[1])
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    else:
        print(f"{name}: took it")
"""
ALL = ("load", "mapped", "slow", "in place", "async", "into", "stream", "open", "slice", "inspect", "drop-in")
HUGE = 100_000_000_000


def test_a_hundred_gigabytes_in_a_small_file_are_refused_before_anything_is_allocated(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(with_header({"w": entry("U8", [HUGE], 0, HUGE)}, b"\0" * 8))
    lines = run_python(WAYS, path).stdout.splitlines()
    cause = f"the tensors end at {HUGE} but the file has only 8 bytes of data: it is cut short"
    assert [line.split(":")[0] for line in lines if cause in line] == list(ALL)


def test_a_hundred_gigabytes_that_are_there_are_more_than_this_process_may_have(tmp_path):
    path = tmp_path / "model"
    with path.open("wb") as file:
        file.write(with_header({"w": entry("U8", [HUGE], 0, HUGE)}))
        file.truncate(file.tell() + HUGE)
    copying = ("load", "mapped", "slow", "async", "stream", "open", "slice", "drop-in")
    lines = run_python(WAYS, path, *copying).stdout.splitlines()
    assert [line.split(":")[:2] for line in lines] == [[way, " MemoryError"] for way in copying], lines


@pytest.mark.parametrize("shape", [[0, 1 << 63], [0, (1 << 64) - 1], [0, 1 << 62, 1 << 62], [1, 1 << 32, 0, 1 << 31, 1]], ids=str)
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"map_location": "meta"}], ids=str)
def test_an_empty_tensor_whose_other_dimensions_no_tensor_has_is_refused(tmp_path, shape, options):
    (tmp_path / "model").write_bytes(with_header({"w": entry("U8", shape, 0, 0)}))
    with pytest.raises(veturboio.FileFormatError) as caught:
        veturboio.load(tmp_path / "model", **options)
    assert caught.value.tensor == "w"


def test_an_empty_tensor_with_large_dimensions_is_one(tmp_path):
    (tmp_path / "model").write_bytes(with_header({"w": entry("U8", [1 << 62, 0, 1 << 62], 0, 0)}))
    assert veturboio.load(tmp_path / "model")["w"].shape == (1 << 62, 0, 1 << 62)


def test_a_shape_of_many_ones_is_a_shape(tmp_path):
    (tmp_path / "model").write_bytes(with_header({"w": entry("U8", [1] * 64, 0, 1)}, b"\7"))
    assert veturboio.load(tmp_path / "model")["w"].flatten().tolist() == [7]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J\x9b2J", "n" * 1_000_000, "\0"], ids=["line break", "terminal", "long", "NUL"])
def test_a_name_does_as_a_name_and_is_told_in_one_short_line(tmp_path, name):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(with_header({name: entry("U8", [1], 0, 1)}, b"\7"))
    assert torch.equal(veturboio.load(good)[name], torch.tensor([7], dtype=torch.uint8))
    bad.write_bytes(with_header({name: entry("U8", [2], 0, 1)}, b"\7"))
    with pytest.raises(veturboio.FileFormatError) as caught:
        veturboio.load(bad)
    assert caught.value.tensor == name
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
