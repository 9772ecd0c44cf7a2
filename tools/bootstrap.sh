#!/usr/bin/env bash
# Sets up all that building and testing need: system packages, a virtual environment, PyTorch, the Python tools, and the package
# itself, built from source in the tree. Does only what is missing, so running it again costs a second or two.
#
#   PYTHON=python3.12   the Python to make the environment with (3.10 or newer)
#   VENV=.venv          where the environment is
#   TORCH=torch==2.13.0 what to install as PyTorch if the environment has none
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=${VENV:-.venv}
torch=${TORCH:-torch==2.13.0}

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

command -v "$python" > /dev/null || fail "$python was not found: install Python 3.10 or newer, or name one with PYTHON="
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than 3.10: name another with PYTHON="

# System packages: package and a file that shows that it is there, however it came.
missing=()
have() { compgen -G "$2" > /dev/null || missing+=("$1"); }
have g++ '/usr/bin/g++*'
have make '/usr/bin/make'
have nlohmann-json3-dev '/usr/include/nlohmann/json.hpp'
have libssl-dev '/usr/include/openssl/evp.h'
have libcurl4-openssl-dev '/usr/include/*/curl/curl.h'
have libgtest-dev '/usr/include/gtest/gtest.h'
# For the slow file system of the tests (tests/fakes/slow_fs), and to unmount it.
have libfuse3-dev '/usr/include/fuse3/fuse.h'
have fuse3 '/usr/bin/fusermount3'
# PyTorch compiles through it where it is there, and `make test-dist` has from it what was compiled here. Nobody is kept by it.
((EUID)) || have ccache '/usr/bin/ccache'
"$python" -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  tools/apt_install.sh bootstrap "${missing[@]}"
fi

[ -x "$venv/bin/python" ] || { say "making $venv"; "$python" -m venv "$venv"; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

if ! "$venv/bin/python" -c 'import torch' 2> /dev/null; then
  say "installing $torch"
  pip install --quiet "$torch"
fi

# What was last installed is noted, so that nothing asks the package index when nothing has changed.
stamp="$venv/.requirements-dev.txt"
if ! cmp -s requirements-dev.txt "$stamp"; then
  say "installing the Python tools"
  pip install --quiet -r requirements-dev.txt
  cp requirements-dev.txt "$stamp"
fi

# setup.py compiles what has changed; its output is of interest only when it fails.
say "building"
mkdir -p build
log="build/build.log"
if ! CCACHE_BASEDIR=$PWD/csrc CCACHE_NOHASHDIR=1 VETURBOIO_WERROR=1 "$venv/bin/python" setup.py build_ext --inplace > "$log" 2>&1; then
  grep -E 'error|Error' "$log" | tail -n 20 >&2 || tail -n 20 "$log" >&2
  fail "the build failed; all of its output is in $log"
fi
# The environment imports the package from this tree. `pip install -e` would do the same, but compile everything a second time in
# a folder of its own; what pip makes of the package is tested by `make test-dist`.
echo "$PWD" > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/veturboio-source.pth"
say "ready: $("$venv/bin/python" -c 'import veturboio, torch; print(f"veturboio {veturboio.__version__} on PyTorch {torch.__version__}")')"
