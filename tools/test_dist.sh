#!/usr/bin/env bash
# Builds an sdist and from it a wheel, installs that beside nothing else of ours, and uses it: what pip users get, from only what
# the sdist holds.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/${VENV:-.venv}/bin/python
work=$PWD/build/dist
rm -rf "$work"
mkdir -p "$work"

fail() { printf 'test-dist: %s\n' "$*" >&2; exit 1; }
pip() { "$python" -m pip --disable-pip-version-check "$@"; }

"$python" -m build --sdist --no-isolation --outdir "$work" . > "$work/sdist.log" 2>&1 || { tail -n 20 "$work/sdist.log" >&2; fail "no sdist"; }
mkdir "$work/source"
tar -xzf "$work"/veturboio-*.tar.gz -C "$work/source" --strip-components=1

# A CUDA build that was asked for and cannot be made is an error, not a build without CUDA.
if ! "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
  if VETURBOIO_CUDA=1 "$python" "$work/source/setup.py" --version > "$work/cuda.log" 2>&1; then
    fail "VETURBOIO_CUDA=1 was accepted by a PyTorch without CUDA"
  fi
  grep -q 'built without CUDA' "$work/cuda.log" || fail "VETURBOIO_CUDA=1 does not say what is wrong"
fi

# As bootstrap.sh compiles, so that ccache finds what it has compiled before.
CCACHE_BASEDIR=$work/source/csrc CCACHE_NOHASHDIR=1 VETURBOIO_WERROR=1 \
  pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$work" "$work/source" > "$work/wheel.log" 2>&1 ||
  { tail -n 20 "$work/wheel.log" >&2; fail "no wheel"; }
wheel=$(echo "$work"/veturboio-*.whl)
[[ $wheel == *-py3-none-linux_* ]] || fail "the wheel is not tagged for every Python 3: $wheel"
pip install --quiet --no-deps --target "$work/installed" "$wheel"

cd "$work"
PYTHONPATH=$work/installed "$python" - "$work" << 'PROGRAM'
import sys
from importlib.metadata import version
from pathlib import Path

import torch
import veturboio

work = Path(sys.argv[1])
assert Path(veturboio.__file__).is_relative_to(work / "installed"), veturboio.__file__
assert version("veturboio") == veturboio.__version__
assert (work / "installed" / "veturboio" / "py.typed").exists()
tensors = {"a": torch.randn(3, 5), "b": torch.arange(7)}
veturboio.save_file(tensors, work / "model.safetensors")
loaded = veturboio.load(work / "model.safetensors")
assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
PROGRAM
echo "test-dist: 1 passed, 0 failed"
