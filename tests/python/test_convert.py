"""The command that converts files of torch.save."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import veturboio
from veturboio import convert


def run(*arguments: str | Path) -> int:
    return convert.main([str(argument) for argument in arguments])


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "linear.weight": torch.randn(17, 33),
        "linear.bias": torch.randn(33, dtype=torch.float64),
        "steps": torch.tensor(7),
        "nan": torch.tensor([float("nan"), 1.0]),
        "half": torch.randn(5).to(torch.bfloat16),
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a
    )


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_converts_files_of_every_age(tmp_path, weights, zip_format, capsys):
    torch.save(weights, tmp_path / "in.pt", _use_new_zipfile_serialization=zip_format)
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out.safetensors", "--validate-result") == 0
    assert same(safetensors.torch.load_file(tmp_path / "out.safetensors"), weights)
    assert "validated, all 5 tensors are the input's, bit for bit" in capsys.readouterr().out


def test_the_result_says_that_it_is_pytorchs_as_transformers_wants(tmp_path, weights):
    torch.save(weights, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out.safetensors") == 0
    assert torch.ops.veturbo.read_metadata(str(tmp_path / "out.safetensors")) == {"format": "pt"}


def test_validates_past_the_page_cache(tmp_path, weights, capsys):
    torch.save(weights, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--validate-result", "--use-direct-io") == 0
    assert "validated" in capsys.readouterr().out


def test_validation_notices_one_bit(tmp_path, weights):
    torch.save(weights, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out") == 0
    damaged = bytearray((tmp_path / "out").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "out").write_bytes(damaged)
    with pytest.raises(convert.ConvertError, match="these tensors differ: half"):
        convert._validate(weights, str(tmp_path / "out"), use_direct_io=False)


def test_dry_run_writes_nothing(tmp_path, weights, capsys):
    torch.save(weights, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--dry-run") == 0
    assert "5 tensors" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["in.pt"]


def test_overwrites_only_when_told_to(tmp_path, weights, capsys):
    torch.save(weights, tmp_path / "in.pt")
    (tmp_path / "out").write_text("precious")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out") == 1
    assert (tmp_path / "out").read_text() == "precious"
    assert "pass --overwrite" in capsys.readouterr().err
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--overwrite") == 0
    assert same(veturboio.load(tmp_path / "out"), weights)


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "anything_else"])
def test_finds_a_nested_state_dict_and_lists_what_it_leaves_out(tmp_path, weights, key, capsys):
    torch.save({key: {**weights, "version": 3}, "epoch": 5, "config": {"lr": 0.1}}, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--enable-to-valid-state-dict") == 0
    assert same(veturboio.load(tmp_path / "out"), weights)
    text = capsys.readouterr().out
    assert f"state dict found under ['{key}']" in text
    assert f"['epoch'] (int), ['config'] (dict), ['{key}']['version'] (int)" in text


def test_finds_a_state_dict_beside_an_optimizers_tensors(tmp_path, weights):
    torch.save({"optimizer": {"momentum": torch.ones(3)}, "checkpoint": {"model": weights}, "model": weights}, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--enable-to-valid-state-dict") == 0
    assert same(veturboio.load(tmp_path / "out"), weights)


def test_does_not_guess_between_two_state_dicts(tmp_path, weights, capsys):
    torch.save({"generator": weights, "discriminator": weights}, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--enable-to-valid-state-dict") == 1
    assert "generator, discriminator" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_what_is_no_tensor_and_the_option_that_helps(tmp_path, weights, capsys):
    torch.save({**weights, "epoch": 5}, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out") == 1
    text = capsys.readouterr().err
    assert "epoch (int)" in text
    assert "--enable-to-valid-state-dict" in text


def test_keeps_tied_weights_tied_and_overlapping_ones_whole(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": base, "tied": base, "part": base[1:]}, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out", "--validate-result") == 0
    loaded = veturboio.load(tmp_path / "out")
    assert loaded["a"].data_ptr() == loaded["tied"].data_ptr()
    assert torch.equal(loaded["part"], base[1:])


class RunsCode:
    def __reduce__(self):
        return print, ("code of the file was run",)


def test_never_runs_code_of_the_file(tmp_path, capsys):
    torch.save({"a": torch.ones(1), "b": RunsCode()}, tmp_path / "in.pt")
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "code of the file was run" not in captured.out
    assert "Weights only load failed" in captured.err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        (b"", "damaged torch file"),
        (b"PK\x03\x04 and no more", "damaged torch file"),
        (b"\x02\0\0\0\0\0\0\0{}", "is a safetensors file already"),
    ],
)
def test_says_why_an_input_cannot_be_converted(tmp_path, content, text, capsys):
    if content is not None:
        (tmp_path / "in.pt").write_bytes(content)
    assert run("-i", tmp_path / "in.pt", "-o", tmp_path / "out") == 1
    captured = capsys.readouterr().err
    assert text in captured
    assert "in.pt" in captured
    assert not (tmp_path / "out").exists()


def test_explains_its_options_and_refuses_others():
    command = [sys.executable, "-m", "veturboio.convert"]
    explained = subprocess.run([*command, "-h"], capture_output=True, text=True, check=True).stdout
    for option in ("--dry-run", "--overwrite", "--enable-to-valid-state-dict", "--validate-result", "--use-direct-io"):
        assert option in explained
    assert subprocess.run([*command, "--no-such-option"], capture_output=True, check=False).returncode == 2
