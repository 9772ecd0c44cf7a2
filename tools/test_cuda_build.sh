#!/usr/bin/env bash
# Builds the package with CUDA against a CUDA build of PyTorch, imports it, and runs the tests that need no accelerator on it.
# Works in a copy of the tree, so that the build of the tree itself stays as it is.
#
#   CUDA_TORCH=torch==2.14.1     what to install as PyTorch if the environment has none (about 5 GB)
#   CUDA_VENV=build/cuda/venv    the environment, made if missing
#   CUDA_HOME                    the CUDA toolkit; by default the one that the nvcc on the path belongs to
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'test-cuda-build: %s\n' "$*" >&2; exit 1; }

if [ -z "${CUDA_HOME:-}" ]; then
  command -v nvcc > /dev/null || fail "nvcc was not found: install the CUDA toolkit or set CUDA_HOME"
  # nvcc may be a wrapper; what it says of itself is where it really is.
  top=$(nvcc --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
  CUDA_HOME=$(readlink -f "$top")
fi
export CUDA_HOME
mkdir -p build/cuda
work=$PWD/build/cuda/source
venv=$(realpath -m "${CUDA_VENV:-build/cuda/venv}")
rm -rf "$work"/{csrc,tests,veturboio}
mkdir -p "$work"
git ls-files --cached --others --exclude-standard | while read -r file; do [ -e "$file" ] && echo "$file"; done |
  tar -cf - -T - | tar -xf - -C "$work"

export VETURBOIO_CUDA=1
VENV=$venv TORCH=${CUDA_TORCH:-torch==2.14.1} "$work/tools/bootstrap.sh"
cd "$work"
"$venv/bin/python" -c '
import torch, veturboio
info = torch.ops.veturbo.build_info()
assert info["cuda"], info
print("test-cuda-build: PyTorch", info["torch"], "CUDA", info["cuda"])
'
"$venv/bin/python" -m pytest -m "not gpu" --numprocesses $(($(nproc) < 4 ? $(nproc) + 1 : 4)) --dist loadgroup
