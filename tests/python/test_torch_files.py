"""Files of torch.save: load() reads them as torch.load does, save_pt() writes them as torch.save does."""

from __future__ import annotations

import pickle
import tarfile
from io import BytesIO

import pytest
import torch
from sample_tensors import DTYPES, assert_same, sample

import veturboio

both_formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Traitor:
    """Code that runs where it is unpickled."""

    runs = 0

    def __reduce__(self):
        return (betray, ())


def betray():
    Traitor.runs += 1
    return "betrayed"


@pytest.fixture(autouse=True)
def innocent(monkeypatch):
    monkeypatch.setattr(Traitor, "runs", 0)


def torch_save(value, path, zipped=True):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def tensors():
    # The legacy format goes by typed storages, which the newest dtypes have not.
    legacy = [dtype for dtype in DTYPES if "float8" not in str(dtype) and "float4" not in str(dtype) and "uint" not in str(dtype)]
    return {str(dtype): sample(dtype, 5, 4) for dtype in legacy}


@both_formats
def test_a_file_of_torch_save_loads_as_with_torch_load(tmp_path, zipped):
    path = torch_save(tensors(), tmp_path / "model.pt", zipped)
    assert_same(veturboio.load(path), tensors())
    assert_same(veturboio.load(path, enable_fast_mode=False, num_thread=2), tensors())


def test_the_format_is_told_by_the_content_and_not_by_the_name(tmp_path):
    for zipped in True, False:
        assert_same(veturboio.load(torch_save(tensors(), tmp_path / "model.safetensors", zipped)), tensors())
    veturboio.save_file(tensors(), tmp_path / "model.pt")
    assert_same(veturboio.load(tmp_path / "model.pt"), tensors())


def test_whatever_a_torch_file_holds_is_returned(tmp_path):
    value = {"epoch": 3, "model": {"w": torch.ones(2)}, "list": [1, "two", None]}
    loaded = veturboio.load(torch_save(value, tmp_path / "checkpoint"))
    assert loaded["model"]["w"].tolist() == [1, 1]
    assert {**loaded, "model": None} == {**value, "model": None}


def test_a_torch_file_can_be_mapped(tmp_path):
    path = torch_save({"w": torch.arange(100_000)}, tmp_path / "model")
    before = path.read_bytes()
    loaded = veturboio.load(path, mmap=True)
    assert torch.equal(loaded["w"], torch.arange(100_000))
    loaded["w"].zero_()
    assert path.read_bytes() == before


def test_map_location_counts_for_torch_files(tmp_path):
    assert veturboio.load(torch_save({"w": torch.ones(2)}, tmp_path / "model"), "meta")["w"].is_meta


@both_formats
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path, zipped):
    path = torch_save({"w": torch.ones(2), "bad": Traitor()}, tmp_path / "model", zipped)
    for options in {}, {"state_dict": {"w": torch.zeros(2)}}, {"weights_only": True}, {"enable_fast_mode": False}:
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            veturboio.load(path, **options)
    assert Traitor.runs == 0


@both_formats
def test_weights_only_can_be_switched_off_by_name_and_only_so(tmp_path, zipped):
    path = torch_save({"bad": Traitor()}, tmp_path / "model", zipped)
    assert veturboio.load(path, weights_only=False) == {"bad": "betrayed"}
    assert Traitor.runs == 1
    with pytest.raises(TypeError, match="positional argument"):
        veturboio.load(path, "cpu", True, None, None, False, None, None, None, False)


def test_save_pt_makes_what_torch_load_reads(tmp_path):
    value = {"model": {str(dtype): sample(dtype, 3, 4) for dtype in DTYPES}, "step": 7, "none": None}
    veturboio.save_pt(value, tmp_path / "ours")
    loaded = torch.load(tmp_path / "ours", weights_only=True)
    assert_same(loaded["model"], value["model"])
    assert (loaded["step"], loaded["none"]) == (7, None)
    assert veturboio.load(tmp_path / "ours")["step"] == 7


def test_save_pt_writes_the_bytes_of_torch_save(tmp_path):
    # Through a file object, so that the archive has the same name inside.
    value = {"w": torch.arange(3_000_000), "v": torch.ones(3, 5), "shared": torch.ones(4).expand(3, 4)}
    expected = BytesIO()
    torch.save(value, expected)
    veturboio.save_pt(value, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == expected.getvalue()


def test_save_pt_keeps_shared_memory_and_strides(tmp_path):
    base = torch.arange(12.0)
    veturboio.save_pt({"a": base, "b": base[2:8].view(2, 3).t()}, tmp_path / "ours")
    loaded = veturboio.load(tmp_path / "ours")
    loaded["a"][2] = -1
    assert loaded["b"][0, 0] == -1
    assert loaded["b"].stride() == (1, 3)


@both_formats
def test_a_torch_file_loads_into_tensors_that_exist(tmp_path, zipped):
    path = torch_save(tensors(), tmp_path / "model", zipped)
    targets = {name: torch.zeros(4, 5, dtype=tensor.dtype).t() for name, tensor in tensors().items()}
    parameter = targets["torch.float32"] = torch.nn.Parameter(targets["torch.float32"])
    assert veturboio.load(path, state_dict=targets) is targets
    assert_same(targets, tensors())
    assert targets["torch.float32"] is parameter
    assert parameter.grad is None


@both_formats
def test_every_mismatch_with_a_torch_file_is_listed_and_nothing_is_written(tmp_path, zipped):
    names = ["fine", "shape", "dtype", "missing"]
    path = torch_save({**{name: torch.ones(2, 3) for name in names}, "step": 3}, tmp_path / "model", zipped)
    targets = {
        "fine": torch.zeros(2, 3),
        "shape": torch.zeros(3, 2),
        "dtype": torch.zeros(2, 3, dtype=torch.float16),
        "step": torch.zeros(1),
        "extra": torch.zeros(2, 3),
    }
    with pytest.raises(ValueError, match="the tensors do not match the file, nothing was loaded") as caught:
        veturboio.load(path, state_dict=targets)
    assert str(caught.value).startswith(f"{path}: ")
    assert set(str(caught.value).partition("nothing was loaded: ")[2].split("; ")) == {
        '"shape" has shape [3, 2], the file [2, 3]',
        '"dtype" has dtype torch.float16, the file torch.float32',
        '"step" is a int in the file',
        '"missing" is in the file but not among the tensors',
        '"extra" is not in the file',
    }
    assert not any(tensor.any() for tensor in targets.values())


def test_what_a_torch_file_cannot_be_copied_into_is_refused_before_the_first_byte(tmp_path):
    path = torch_save({"a": torch.ones(2, 3), "b": torch.ones(2, 3), "c": torch.ones(2, 3)}, tmp_path / "model")
    targets = {"a": torch.zeros(2, 3), "b": torch.zeros(1, 3).expand(2, 3), "c": torch.zeros(2, 3, device="meta")}
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        veturboio.load(path, state_dict=targets)
    assert '"b" has elements that share memory' in str(caught.value)
    assert '"c" is not a dense tensor with memory' in str(caught.value)
    assert not targets["a"].any()


def test_a_torch_file_that_is_no_state_dict_does_not_load_into_one(tmp_path):
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        veturboio.load(torch_save([torch.ones(1)], tmp_path / "model"), state_dict={})


def whole_file(tmp_path, zipped):
    return torch_save({"w": torch.arange(1000.0), "b": torch.ones(5)}, tmp_path / "whole", zipped).read_bytes()


@both_formats
def test_a_torch_file_that_is_cut_short_anywhere_is_a_format_error(tmp_path, zipped):
    whole = whole_file(tmp_path, zipped)
    path = tmp_path / "cut"
    for size in [*range(100), *range(100, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        # Where a name in the legacy format's pickle is cut, PyTorch sees another name, of something that it does not allow.
        with pytest.raises((veturboio.FileFormatError, pickle.UnpicklingError)) as caught:
            veturboio.load(path)
        if isinstance(caught.value, veturboio.FileFormatError):
            assert caught.value.filename == str(path)
        else:
            assert not zipped
            assert "Unsupported global" in str(caught.value)


def test_a_zip_file_that_is_none_of_torchs_is_a_format_error(tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 1000)
    with pytest.raises(veturboio.FileFormatError, match="damaged torch file: PytorchStreamReader") as caught:
        veturboio.load(path)
    assert caught.value.filename == str(path)


def test_a_wrong_magic_number_is_a_format_error(tmp_path):
    (tmp_path / "broken").write_bytes(pickle.dumps(12345, protocol=2) * 3)
    with pytest.raises(veturboio.FileFormatError, match="damaged torch file: Invalid magic number"):
        veturboio.load(tmp_path / "broken")


def test_a_tar_file_goes_to_pytorch(tmp_path):
    # The format before PyTorch 0.1.10. PyTorch refuses to read it with weights_only.
    with tarfile.open(tmp_path / "old", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("storages"), BytesIO())
    with pytest.raises(RuntimeError, match=r"weights_only=True.*legacy \.tar format"):
        veturboio.load(tmp_path / "old")


def test_the_operators_name_the_way_to_convert_a_torch_file(tmp_path):
    path = torch_save({"w": torch.ones(1)}, tmp_path / "model")
    for call in torch.ops.veturbo.load_file, torch.ops.veturbo.read_metadata, torch.ops.veturbo.list_tensors:
        with pytest.raises(ValueError, match=r"this is a file of torch\.save, not safetensors: .*python -m veturboio\.convert"):
            call(str(path))
