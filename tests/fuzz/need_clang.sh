#!/usr/bin/env bash
# Installs clang with libFuzzer where it is missing, as tools/bootstrap.sh does with what every build needs; who is not root is told how.
set -euo pipefail

cxx=$1
if command -v "$cxx" > /dev/null && compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer-*.a' > /dev/null; then
  exit 0
fi
install="apt-get install -y --no-install-recommends clang-14 libclang-rt-14-dev"
if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
  echo "fuzz: installing clang-14 with libFuzzer"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $install -qq > /dev/null
else
  echo "fuzz: clang with libFuzzer is missing. Run this, then again what you ran: sudo $install" >&2
  exit 1
fi
