#!/usr/bin/env bash
# Prints which lines of csrc/core no C++ unit test reaches, and which of the Python package no Python test does. What runs only in
# processes that the tests start counts as not reached.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin

find build/cpp-coverage -name '*.gcda' -delete 2> /dev/null || true
make --no-print-directory -j "$(nproc)" -C tests/cpp run COVERAGE=1
# The compiler ran in tests/cpp, to which its notes are relative.
"$bin/gcovr" --root . --object-directory tests/cpp --filter csrc/core/ build/cpp-coverage

data=build/python.coverage
"$bin/coverage" run --data-file="$data" --source=veturboio -m pytest -q -n0 tests/python
"$bin/coverage" report --data-file="$data" --show-missing --skip-covered
