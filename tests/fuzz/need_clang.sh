#!/usr/bin/env bash
# Installs clang with libFuzzer where it is missing.
set -euo pipefail

cxx=$1
if command -v "$cxx" > /dev/null && compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer-*.a' > /dev/null; then
  exit 0
fi
"$(dirname "$0")/../../tools/apt_install.sh" fuzz clang-14 libclang-rt-14-dev
