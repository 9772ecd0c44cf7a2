#!/usr/bin/env bash
# clang-tidy over the C++ of the extension (what it looks for says .clang-tidy), but not over csrc/cuda, which needs the CUDA Toolkit.
# With arguments, over these files only.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

flags=(-std=c++20 -Icsrc -Icsrc/core)
while read -r include; do
  flags+=(-isystem "$include")
done < <("$bin/python" -c '
import sysconfig
from torch.utils.cpp_extension import include_paths
print(*include_paths(), sysconfig.get_path("include"), sep="\n")')

if (($# == 0)); then
  mapfile -t files < <(git ls-files 'csrc/core/*.cpp' 'csrc/torch/*.cpp')
  set -- "${files[@]}"
fi
# What it says beside its findings: how far it is, and how many it has left out.
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} "$bin/clang-tidy" --quiet {} -- "${flags[@]}" 2> >(grep -v ' warnings generated\.$\|Processing file' >&2)
echo "clang-tidy: $# files, nothing found"
