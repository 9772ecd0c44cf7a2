"""patch_safetensors(): libraries that know only safetensors load and save by the engine, without knowing it."""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from fresh_process import environment, run_python
from sample_tensors import assert_same

import veturboio
import veturboio.safetensors
import veturboio.safetensors.torch
from veturboio import _reader

# All files are local: nobody must ask a hub for anything. The libraries read these when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

# What the libraries warn of is not about us.
pytestmark = pytest.mark.filterwarnings("ignore")

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the engine opens from now on, each time that it does."""
    files: list[str] = []
    init = _reader.ModelReader.__init__

    def noted(self, models, *arguments):
        files.extend(Path(title).name for title in [models.title])
        init(self, models, *arguments)

    monkeypatch.setattr(_reader.ModelReader, "__init__", noted)
    return files


@pytest.fixture(autouse=True)
def unpatched_afterwards():
    yield
    veturboio.unpatch_safetensors()


@pytest.fixture
def module_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a module of this test's, with these names."""

    def make(**names: Any) -> Any:
        module = types.ModuleType(f"a_module_with_{'_and_'.join(names)}")
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return make


def test_the_names_of_safetensors_are_ours_until_they_are_theirs_again(tmp_path, opened, module_with):
    theirs = (safetensors.safe_open, safetensors.torch.load_file, safetensors.torch.save_file)
    importer = module_with(opening=theirs[0], load_file=theirs[1])
    with veturboio.patch_safetensors():
        assert safetensors.safe_open is importer.opening is veturboio.safetensors.safe_open
        assert safetensors.torch.load_file is importer.load_file is veturboio.safetensors.torch.load_file
        safetensors.torch.save_file(TENSORS, tmp_path / "model")
        assert_same(importer.load_file(tmp_path / "model"), TENSORS)
        assert opened == ["model"]
        late = module_with(save_file=safetensors.torch.save_file)
    assert (safetensors.safe_open, safetensors.torch.load_file, safetensors.torch.save_file) == theirs
    assert (importer.opening, importer.load_file, late.save_file) == theirs
    assert veturboio.safetensors.safe_open is not safetensors.safe_open, "ours are ours still"


def test_patching_twice_is_patching_once():
    theirs = safetensors.torch.load
    veturboio.patch_safetensors()
    with veturboio.patch_safetensors():
        assert safetensors.torch.load is veturboio.safetensors.torch.load
    assert safetensors.torch.load is veturboio.safetensors.torch.load, "the block did not begin it and does not end it"
    veturboio.unpatch_safetensors()
    veturboio.unpatch_safetensors()
    assert safetensors.torch.load is theirs


def test_who_has_imported_ours_by_name_keeps_them(module_with):
    mine = module_with(load_file=veturboio.safetensors.torch.load_file)
    with veturboio.patch_safetensors():
        pass
    assert mine.load_file is veturboio.safetensors.torch.load_file


def test_their_exception_catches_ours(tmp_path):
    (tmp_path / "model").write_bytes(b"\xff" * 100)
    with (
        veturboio.patch_safetensors(),
        pytest.raises(safetensors.SafetensorError),
        safetensors.safe_open(str(tmp_path / "model"), "pt"),
    ):
        pass


PROGRAM = """
import sys
from safetensors.torch import load_file, save_file
print(__name__, sys.argv[1:], load_file.__module__, sorted(load_file(sys.argv[1])))
"""


def test_a_program_that_cannot_be_edited(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "model")
    (tmp_path / "program.py").write_text(PROGRAM)
    run = "import runpy; runpy.run_module('veturboio.run', run_name='__main__')"
    model = str(tmp_path / "model")
    expected = f"__main__ ['{model}', '-x'] {{}} ['a', 'b']\n"
    script = str(tmp_path / "program.py")
    assert run_python(run, script, model, "-x").stdout == expected.format("veturboio.safetensors.torch")
    assert run_python(run, "-m", "program", model, "-x", cwd=tmp_path).stdout == expected.format("veturboio.safetensors.torch")
    off = environment(VETURBOIO_PATCH_SAFETENSORS="0")
    assert run_python(run, script, model, "-x", env=off).stdout == expected.format("safetensors.torch")
    assert run_python(run, check=False).returncode == 2
    assert run_python(run, "-m", check=False).returncode == 2
    assert "usage: python -m veturboio.run" in run_python(run, "--help").stdout


def test_importing_veturboio_does_not_import_safetensors():
    assert run_python("import sys, veturboio; print('safetensors' in sys.modules)").stdout == "False\n"


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_either_way(load: Callable[[], torch.nn.Module], opened: list[str], files: list[str]) -> None:
    """The library loads the same with and without us, and with us it was the engine that opened the files."""
    expected = state(load())
    assert opened == []
    with veturboio.patch_safetensors():
        model = load()
    assert set(opened) == set(files)
    assert_same(state(model), expected)
    if hasattr(model, "training"):
        model.train()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small BERT as one file, and as several."""
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=500, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128
    )
    model = transformers.BertModel(config)
    folders = {"single": tmp_path_factory.mktemp("single"), "sharded": tmp_path_factory.mktemp("sharded")}
    model.save_pretrained(folders["single"])
    model.save_pretrained(folders["sharded"], max_shard_size="200KB")
    assert len(list(folders["sharded"].glob("*.safetensors"))) > 1
    return folders


def files_of(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.safetensors")]


@pytest.mark.parametrize("options", [{}, {"dtype": torch.bfloat16}, {"device_map": "cpu"}], ids=str)
@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_transformers_loads(bert, opened, kind, options):
    transformers = importlib.import_module("transformers")
    folder = bert[kind]
    same_either_way(lambda: transformers.AutoModel.from_pretrained(folder, **options), opened, files_of(folder))


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_transformers_saves_the_same_bytes(bert, tmp_path, kind):
    transformers = importlib.import_module("transformers")
    options = {"max_shard_size": "200KB"} if kind == "sharded" else {}
    model = transformers.AutoModel.from_pretrained(bert[kind])
    model.save_pretrained(tmp_path / "theirs", **options)
    with veturboio.patch_safetensors():
        model.save_pretrained(tmp_path / "ours", **options)
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == names
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


@pytest.mark.parametrize("device_map", [None, {"": "cpu"}, {"embeddings": "cpu", "encoder": "cpu", "pooler": "cpu"}], ids=str)
@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_accelerate_loads_a_checkpoint(bert, opened, kind, device_map):
    transformers, accelerate = importlib.import_module("transformers"), importlib.import_module("accelerate")
    config = transformers.AutoConfig.from_pretrained(bert[kind])

    def load():
        with accelerate.init_empty_weights(include_buffers=False):
            model = transformers.AutoModel.from_config(config)
        if device_map is None:
            model = transformers.AutoModel.from_config(config)
        accelerate.load_checkpoint_in_model(model, bert[kind], device_map=device_map)
        return model

    same_either_way(load, opened, files_of(bert[kind]))


def test_accelerate_saves_the_same_bytes(tmp_path):
    accelerate = importlib.import_module("accelerate")
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    accelerate.Accelerator(cpu=True).save_model(model, tmp_path / "theirs")
    with veturboio.patch_safetensors():
        accelerate.Accelerator(cpu=True).save_model(model, tmp_path / "ours")
    for path in (tmp_path / "theirs").iterdir():
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes()


def test_diffusers_loads_and_saves(tmp_path, opened):
    diffusers = importlib.import_module("diffusers")
    torch.manual_seed(2)
    kinds = ("DownBlock2D", "UpBlock2D")
    model = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(32,), layers_per_block=1, down_block_types=kinds[:1], up_block_types=kinds[1:]
    )
    model.save_pretrained(tmp_path / "theirs")
    with veturboio.patch_safetensors():
        model.save_pretrained(tmp_path / "ours")
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    same_either_way(lambda: diffusers.UNet2DModel.from_pretrained(tmp_path / "theirs"), opened, [name])


def test_peft_loads_and_saves(bert, tmp_path, opened):
    transformers, peft = importlib.import_module("transformers"), importlib.import_module("peft")
    torch.manual_seed(3)
    base = transformers.AutoModel.from_pretrained(bert["single"])
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "theirs")
    with veturboio.patch_safetensors():
        model.save_pretrained(tmp_path / "ours")
    name = "adapter_model.safetensors"
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()

    def load():
        again = transformers.AutoModel.from_pretrained(bert["single"])
        return peft.PeftModel.from_pretrained(again, tmp_path / "theirs")

    same_either_way(load, opened, [name, "model.safetensors"])
