"""Loading into a module. What it does to a module is compared with what load_state_dict() does to a copy of it."""

from __future__ import annotations

import copy
import io
import math
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from fresh_process import run_python
from safetensors_files import entry, with_header
from sample_tensors import assert_same
from sfcs_cluster import Folder
from test_save_memory import _BYTES_OF

import veturboio
from fakes.slow_mount import NoMountError, SlowFs
from veturboio import _load_into

nn = torch.nn


class Block(nn.Module):
    """Of everything that a state dict has, and of what it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.register_parameter("none", None)
        self.register_buffer("position", torch.arange(5))
        self.register_buffer("cache", torch.zeros(7), persistent=False)
        self.unset: nn.Module | None = None


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.body = Block()
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight


class Renaming(nn.Linear):
    """Takes the names of an older version."""

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        if f"{prefix}kernel" in state_dict:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def sequence() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Dropout(), nn.Sequential(Block(), nn.LSTM(3, 2)))


MODELS = {
    "block": Block,
    "tied": Tied,
    "sequence": sequence,
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "repeated": lambda: nn.Sequential(*[nn.Linear(3, 3)] * 3),
    "half": lambda: Tied().to(torch.bfloat16),
    "channels last": lambda: nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    "old weight norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3))),
    "renaming": lambda: nn.Sequential(Renaming(4, 3)),
    "empty": nn.Identity,
}
# These are given a state dict by PyTorch, since they have a say in what becomes of it.
WITH_A_SAY = ("weight norm", "old weight norm", "renaming")
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


def make_other(make) -> nn.Module:
    """The same with other weights."""
    model = make()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1) if tensor.dtype.is_floating_point else tensor.fill_(9)
    return model


def save(model: nn.Module, path: Path, **changes: torch.Tensor | None) -> Path:
    """A file of its state dict, with tensors added, replaced or (None) left out."""
    tensors = {name: tensor for name, tensor in {**model.state_dict(), **changes}.items() if tensor is not None}
    veturboio.save_file(tensors, path, force_save_shared_tensor=True)
    return path


def outcome(call) -> object:
    try:
        return call()
    except RuntimeError as error:
        return str(error)


def tie_groups(model: nn.Module) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


def assert_same_module(found: nn.Module, expected: nn.Module) -> None:
    assert_same(found.state_dict(), expected.state_dict())
    assert tie_groups(found) == tie_groups(expected)
    for name, tensor in expected.state_dict(keep_vars=True).items():
        there = found.state_dict(keep_vars=True)[name]
        assert type(there) is type(tensor)
        assert there.requires_grad == tensor.requires_grad
        assert there.is_leaf


def is_read_beside(monkeypatch) -> list[bool]:
    """Notes whenever a state dict is loaded and left to PyTorch."""
    calls: list[bool] = []
    by_torch = _load_into._load_state_dict

    def noted(*arguments, **options):
        calls.append(True)
        return by_torch(*arguments, **options)

    monkeypatch.setattr(_load_into, "_load_state_dict", noted)
    return calls


@every_model
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("file_dtype", [None, torch.float64, torch.float16])
def test_a_module_gets_what_load_state_dict_gives_it(tmp_path, make, assign, file_dtype):
    source = make_other(make)
    if file_dtype is not None:
        source = source.to(file_dtype)
    path = save(source, tmp_path / "model")
    model = make()
    expected = copy.deepcopy(model)
    addresses = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert veturboio.load_into(model, path, assign=assign) == expected.load_state_dict(veturboio.load(path), assign=assign)
    if assign and tie_groups(expected) != tie_groups(model):  # load_state_dict() makes a parameter for each name
        assert tie_groups(model) == tie_groups(make())
        assert_same(model.state_dict(), expected.state_dict())
    else:
        assert_same_module(model, expected)
    if not assign:
        assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == addresses


@pytest.mark.parametrize("model_name", [name for name in MODELS if name != "repeated"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"extra": torch.ones(2), "a.b": torch.ones(1), "0.more": torch.ones(1), "body.linear.x": torch.ones(1)},
        {"linear.weight": None, "0.weight": None, "body.position": None, "norm1.weight": None, "3.0.scale": None, "1.bias": None},
        {"linear.bias": torch.ones(5), "0.weight": torch.ones(2, 2, 1), "body.scale": torch.ones(2), "extra": torch.ones(1)},
        {"none": torch.ones(1), "body.cache": torch.ones(7), "cache": torch.ones(7), "unset.weight": torch.ones(1)},
        {"3.0.scale": torch.ones(1), "scale": torch.ones(1), "1.num_batches_tracked": None},
        {"0.kernel": torch.ones(3, 4), "0.weight": None},
    ],
    ids=["unexpected", "missing", "mismatched", "not in the state dict", "of an older version", "renamed"],
)
def test_what_does_not_match_is_told_in_the_words_of_load_state_dict(tmp_path, model_name, strict, changes):
    make = MODELS[model_name]
    path = save(make_other(make), tmp_path / "model", **changes)
    model, expected = make(), make()
    before = copy.deepcopy(model.state_dict())
    found = outcome(lambda: veturboio.load_into(model, path, strict))
    assert found == outcome(lambda: expected.load_state_dict(veturboio.load(path), strict))
    if isinstance(found, str) and model_name not in WITH_A_SAY:
        assert_same(model.state_dict(), before)


def test_the_words_themselves(tmp_path):
    path = save(Block(), tmp_path / "model", **{"linear.bias": torch.ones(5), "position": None, "extra": torch.ones(1)})
    with pytest.raises(RuntimeError) as caught:
        veturboio.load_into(Block(), path)
    assert str(caught.value) == (
        'Error(s) in loading state_dict for Block:\n\tMissing key(s) in state_dict: "position". '
        '\n\tUnexpected key(s) in state_dict: "extra". '
        "\n\tsize mismatch for linear.bias: copying a param with shape torch.Size([5]) from checkpoint, "
        "the shape in current model is torch.Size([3])."
    )
    path = save(Block(), tmp_path / "model", position=None, extra=torch.ones(1))
    keys = veturboio.load_into(Block(), path, strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (["position"], ["extra"])


@every_model
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("file_dtype", [None, torch.float64])
def test_a_module_on_the_meta_device_gets_memory(tmp_path, make, assign, file_dtype):
    source = make_other(make)
    if file_dtype is not None:
        source = source.to(file_dtype)
    path = save(source, tmp_path / "model")
    with torch.device("meta"):
        model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        veturboio.load_into(model, path, assign=assign)
    expected = make()
    expected.load_state_dict(source.state_dict(), assign=assign)
    assert_same(model.state_dict(), expected.state_dict())
    assert tie_groups(model) == tie_groups(make()) or (assign and make is MODELS["old weight norm"])
    requires_grad = {name: tensor.requires_grad for name, tensor in make().state_dict(keep_vars=True).items()}
    assert {name: tensor.requires_grad for name, tensor in model.state_dict(keep_vars=True).items()} == requires_grad


def test_on_the_meta_device_stays_what_the_file_has_not_and_what_is_refused(tmp_path):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    path = save(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), tmp_path / "model", **{"1.num_batches_tracked": None})
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "2.weight", "2.bias"'):
        veturboio.load_into(model, path)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    veturboio.load_into(model, path, strict=False)
    assert [name for name, tensor in model.state_dict().items() if tensor.is_meta] == ["2.weight", "2.bias"]
    assert int(model[1].num_batches_tracked) == 0


@pytest.mark.parametrize("kept", ["embedding.weight", "head.weight"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("assign", [False, True])
def test_tied_weights_are_taken_under_either_name(tmp_path, kept, device, assign):
    source = make_other(Tied)
    dropped = {"embedding.weight", "head.weight"} - {kept}
    path = save(source, tmp_path / "model", **dict.fromkeys(dropped))
    with torch.device(device):
        model = Tied()
    assert veturboio.load_into(model, path, assign=assign) == ([], [])
    assert model.head.weight is model.embedding.weight
    assert_same(model.state_dict(), source.state_dict())


def test_where_the_file_has_tied_weights_twice_the_last_counts(tmp_path):
    changes = {"embedding.weight": torch.zeros(6, 4), "head.weight": torch.ones(6, 4)}
    path = save(Tied(), tmp_path / "model", **changes)
    model, expected = Tied(), Tied()
    veturboio.load_into(model, path)
    expected.load_state_dict(veturboio.load(path))
    assert_same_module(model, expected)


def test_a_tensor_that_the_file_has_once_fills_parameters_that_are_not_tied(tmp_path):
    path = save(make_other(Tied), tmp_path / "model")
    model = Tied()
    model.head.weight = nn.Parameter(torch.zeros(6, 4))
    veturboio.load_into(model, path)
    assert torch.equal(model.head.weight, model.embedding.weight)
    assert model.head.weight.data_ptr() != model.embedding.weight.data_ptr()
    veturboio.load_into(model.half(), path)
    assert torch.equal(model.head.weight, model.embedding.weight)


@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
def test_tensors_are_converted_a_few_at_a_time(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(_load_into, "_BATCH_BYTES", limit)
    path = save(make_other(sequence), tmp_path / "model")
    model, expected = sequence().double(), sequence().double()
    veturboio.load_into(model, path)
    expected.load_state_dict(veturboio.load(path))
    assert_same_module(model, expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_is_made_only_for_modules_with_a_say_in_it(tmp_path, monkeypatch, name):
    calls = is_read_beside(monkeypatch)
    veturboio.load_into(MODELS[name](), save(MODELS[name](), tmp_path / "model"))
    assert bool(calls) == (name in WITH_A_SAY)


def with_hook(model: nn.Module) -> nn.Module:
    model.register_load_state_dict_pre_hook(lambda module, state_dict, *_: state_dict.pop("extra", None))
    return model


def with_post_hook(model: nn.Module) -> nn.Module:
    model.register_load_state_dict_post_hook(lambda module, keys: keys.unexpected_keys.clear())
    return model


class WithOwnLoad(nn.Linear):
    def load_state_dict(self, state_dict, strict=True):
        return super().load_state_dict({name: tensor for name, tensor in state_dict.items() if name != "extra"}, strict)


@pytest.mark.parametrize(
    "make",
    [lambda: with_hook(nn.Linear(4, 3)), lambda: with_post_hook(nn.Linear(4, 3)), lambda: WithOwnLoad(4, 3)],
    ids=["pre-hook", "post-hook", "own load_state_dict"],
)
def test_hooks_have_their_say(tmp_path, make):
    source = make_other(lambda: nn.Linear(4, 3))
    path = save(source, tmp_path / "model", extra=torch.ones(1))
    model = make()
    assert veturboio.load_into(model, path) == ([], [])
    assert_same(model.state_dict(), source.state_dict())


def test_parameters_that_overlap_in_part_are_filled_one_after_the_other(tmp_path):
    model = nn.Module()
    whole = torch.zeros(6)
    model.a, model.b = nn.Parameter(whole[:4]), nn.Parameter(whole[2:])
    veturboio.save_file({"a": torch.ones(4), "b": torch.full((4,), 2.0)}, tmp_path / "model")
    veturboio.load_into(model, tmp_path / "model")
    assert whole.tolist() == [1, 1, 2, 2, 2, 2]


def test_a_file_of_torch_save(tmp_path):
    source = make_other(Tied)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    model = Tied()
    assert veturboio.load_into(model, tmp_path / "model.pt") == ([], [])
    assert_same_module(model, source)


@every_model
def test_several_files(tmp_path, make):
    source = make_other(make)
    veturboio.save_sharded(source.state_dict(), tmp_path, 64, force_save_shared_tensor=True)
    model = make()
    assert veturboio.load_into(model, tmp_path) == ([], [])
    assert_same(model.state_dict(), source.state_dict())
    assert tie_groups(model) == tie_groups(source)


def test_remote_and_encrypted(sfcs: Folder):
    source = make_other(Tied)
    secret = {"key": bytes(16), "iv": bytes(16)}
    veturboio.save_model(source, sfcs.uri("model"), **secret)
    model = Tied()
    veturboio.load_into(model, sfcs.uri("model"), **secret)
    assert_same_module(model, source)
    with pytest.raises(ValueError, match="model"):
        veturboio.load_into(model, sfcs.uri("model"))


def test_a_module_that_trains_goes_on_training(tmp_path):
    path = save(make_other(Tied), tmp_path / "model")
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    veturboio.load_into(model, path)
    before = model.embedding.weight.detach().clone()
    model.head(model.embedding(torch.arange(6))).sum().backward()
    optimizer.step()
    assert not torch.equal(model.embedding.weight, before)


@pytest.mark.parametrize(
    "save_it", [lambda tensors, path: veturboio.save_file(tensors, path), torch.save], ids=["safetensors", "torch"]
)
def test_a_model_in_memory(tmp_path, save_it):
    source = make_other(Block)
    save_it(source.state_dict(), tmp_path / "model")
    for memory in (tmp_path / "model").read_bytes(), io.BytesIO((tmp_path / "model").read_bytes()):
        model = Block()
        veturboio.load_into(model, memory)
        assert_same_module(model, source)


def test_errors_of_the_file_are_those_of_a_load(tmp_path):
    with pytest.raises(FileNotFoundError):
        veturboio.load_into(Block(), tmp_path / "none")
    (tmp_path / "damaged").write_bytes(b"\x08\0\0\0\0\0\0\0{}      more")
    with pytest.raises(veturboio.FileFormatError):
        veturboio.load_into(Block(), tmp_path / "damaged")


@pytest.mark.parametrize("limit", [100, 1 << 20])
@pytest.mark.parametrize("name", ["tied", "half", "renaming"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_progress_is_that_of_all_that_is_loaded(tmp_path, monkeypatch, name, device, limit):
    monkeypatch.setattr(_load_into, "_BATCH_BYTES", limit)
    source = make_other(MODELS[name]).float()
    path = save(source, tmp_path / "model", extra=torch.ones(100))
    with torch.device(device):
        model = MODELS[name]()
    reports: list[tuple[int, int]] = []
    veturboio.load_into(model, path, strict=False, progress=lambda done, total: reports.append((done, total)))
    extra = 400 if name in WITH_A_SAY else 0  # PyTorch is given all there is
    size = sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in source.state_dict(keep_vars=True).values()}.values())
    done, total = zip(*reports, strict=True)
    assert set(total) == {size + extra}
    assert list(done) == sorted(done)
    assert done[-1] == size + extra


def test_progress_of_a_file_of_torch_save_and_as_a_bar(tmp_path, capsys):
    torch.save(Tied().state_dict(), tmp_path / "model.pt")
    reports: list[tuple[int, int]] = []
    veturboio.load_into(Tied(), tmp_path / "model.pt", progress=lambda done, total: reports.append((done, total)))
    assert all(done <= total for done, total in reports)
    veturboio.load_into(Tied(), save(Tied(), tmp_path / "model"), progress=True)
    assert str(tmp_path / "model") in capsys.readouterr().err


def test_a_slow_load_is_given_up_in_time(tmp_path):
    save(nn.Linear(1000, 1000), tmp_path / "model")
    with ExitStack() as mounts:
        try:
            far = mounts.enter_context(SlowFs(tmp_path, delay_ms=5, mb_per_s=1))
        except NoMountError as error:
            pytest.skip(str(error))
        with pytest.raises(TimeoutError, match=r"model: not done after 1 s, given up at \d+ of \d+ bytes"):
            veturboio.load_into(nn.Linear(1000, 1000), far / "model", num_thread=1, use_direct_io=False, timeout=1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_hosts_memory_has_its_limit(tmp_path, device):
    path = save(make_other(Tied), tmp_path / "model")
    with torch.device(device):
        model = Tied()
    if device == "meta":
        with pytest.raises(MemoryError, match="max_host_bytes"):
            veturboio.load_into(model, path, max_host_bytes=100)
        assert all(tensor.is_meta for tensor in model.state_dict().values())
    else:  # what is read into the module's own memory takes none
        veturboio.load_into(model, path, max_host_bytes=100)


@pytest.mark.parametrize("options", [{"max_host_bytes": -1}, {"num_thread": 0}, {"timeout": -1.0}])
def test_options_that_cannot_be_are_refused_as_by_load(tmp_path, options):
    path = save(Tied(), tmp_path / "model")
    with pytest.raises(ValueError) as expected:  # noqa: PT011 (its text is what is compared)
        veturboio.load(path, **options)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        veturboio.load_into(Tied(), path, **options)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("way", ["in place", "in place, cold", "on meta", "on meta, assigned", "converted", "converted, on meta"])
def test_no_second_copy_of_the_weights_is_made(tmp_path, way):
    # In a process of its own: the peak is one of its whole life.
    shape, count = [4096, 4096], 10
    write_model(tmp_path / "small", [1, 1], 1)
    write_model(tmp_path / "model", shape, count)
    if "cold" not in way:
        with (tmp_path / "model").open("rb") as file:  # into the page cache
            while file.read(1 << 20):
                pass
    done = run_python(
        _BYTES_OF
        + """
import sys, torch, veturboio
folder, way = sys.argv[1:]
def load(file, size, count):
    layers = [
        torch.nn.Linear(
            size, size, bias=False, device="meta" if "meta" in way else "cpu", dtype=torch.half if "converted" in way else None
        )
        for _ in range(count)
    ]
    model = torch.nn.Sequential(*layers)
    veturboio.load_into(model, folder + file, assign="assigned" in way)
    assert all(layer.weight[-1, -1] == layer.weight[0, 0] == 0 for layer in layers)
    return sum(layer.weight.nbytes for layer in layers)
load("/small", 1, 1)
before = bytes_of("VmRSS")
model = load("/model", 4096, 10)
print(bytes_of("VmHWM") - before, model)
""",
        tmp_path,
        way,
    )
    taken, model = map(int, done.stdout.split())
    assert model == 4096 * 4096 * count * (2 if "converted" in way else 4)
    # What is converted passes through one tensor of the file's, of 64 MiB here, for each time.
    buffers = (64 << 20) * ("converted" in way)
    assert model * 0.95 < taken < model * 1.05 + (16 << 20) + buffers


def write_model(path: Path, shape: list[int], count: int) -> None:
    """Of zeros in float32, which take no room where the file lies."""
    size = 4 * math.prod(shape)
    header = {f"{i}.weight": entry("F32", shape, i * size, (i + 1) * size) for i in range(count)}
    with path.open("wb") as file:
        file.write(with_header(header))
        file.truncate(file.tell() + count * size)
