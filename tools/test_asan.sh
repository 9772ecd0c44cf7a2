#!/usr/bin/env bash
# Builds the package with AddressSanitizer, in a copy of this tree below build/, and runs the Python tests with that. The arguments
# are pytest's.
#
# Leaks are not looked for: Python and PyTorch keep what they have until they end. Left out are the tests that limit a process's
# address space, of which the sanitizer takes 16 TiB, and those that search all of it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/${VENV:-.venv}/bin/python
tree=$PWD/build/asan
mkdir -p "$tree"
find "$tree" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -c | tar -x -C "$tree"

cd "$tree"
mkdir -p build
CFLAGS="-fsanitize=address -fno-omit-frame-pointer -O1 -g1" LDFLAGS="-fsanitize=address" \
  "$python" setup.py build_ext --inplace > build/build.log 2>&1 || { tail -n 20 build/build.log >&2; exit 1; }
# The sanitizer has to be there before the first library, and the C++ library, whose exceptions it watches, before PyTorch.
libraries="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
export PYTHONPATH=$tree ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0:quarantine_size_mb=16
LD_PRELOAD=$libraries "$python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup \
  --ignore tests/python/test_out_of_memory.py --ignore tests/python/test_secrets.py "$@"
