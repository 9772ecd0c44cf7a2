# Everything a developer or CI runs. Each target sets up what it needs (tools/bootstrap.sh), and rebuilds only what has changed.
SHELL := /bin/bash
VENV ?= .venv
PYTHON_IN_VENV := $(VENV)/bin/python

CXX_FILES = $(shell git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'tests/*.cpp' 'tests/*.h' 'bench/*.cpp' 'bench/*.h')
SHELL_FILES = $(shell git ls-files '*.sh' '.ci/run')

.PHONY: help setup test check test-cpp test-python test-san test-asan test-faults test-stress fuzz instruments tidy coverage test-dist \
  test-cuda-build demo bench bench-load bench-gpu clean

help:
	@echo "make demo             run a real model, convert one, compare the loaders"
	@echo "make test             all checks and tests that need no accelerator"
	@echo "make check            format, lint and types only"
	@echo "make test-cpp         the C++ unit tests only"
	@echo "make test-python      the Python tests only"
	@echo "make test-san         the C++ unit tests under the address, undefined-behaviour and thread sanitizers"
	@echo "make test-asan        the Python tests with AddressSanitizer in the package (half an hour)"
	@echo "make tidy             clang-tidy over the C++ of the extension (some minutes)"
	@echo "make coverage         what of csrc/core the C++ unit tests reach, and of the package the Python tests"
	@echo "make test-faults      loads and saves that fail, in 1400 scenarios, and 200 that are killed (FAULTS='--seed 7')"
	@echo "make test-stress      threads and processes at once, 200 interrupts, 90 exits, 200 repeats (STRESS='--seed 7')"
	@echo "make fuzz             what parsers make of bytes that nobody would write: libFuzzer, 60 s a parser (FUZZ_SECONDS=600)"
	@echo "make test-dist        sdist, wheel and pip install"
	@echo "make test-cuda-build  a CUDA build against CUDA_TORCH (a 5 GB download), and the tests on it"
	@echo "make bench            loads, saves and conversions, beside the peers and what the machine can do (an hour)"
	@echo "make bench-load       loading from shared memory, beside torch.load"
	@echo "make bench-gpu        loading to a CUDA GPU and saving from it, beside what its link can do"
	@echo "make clean            remove what was built, but not $(VENV)"

setup:
	@VENV=$(VENV) tools/bootstrap.sh

test: check test-cpp test-python

check: setup
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/ruff format --quiet --check .
	$(VENV)/bin/mypy --no-error-summary
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_FILES)
	@for file in $(SHELL_FILES); do bash -n $$file || exit 1; done

test-cpp: setup
	$(MAKE) --no-print-directory -j "$$(nproc)" -C tests/cpp run

# Many of the tests wait, for clocks or for processes of theirs: one at work more than there are cores.
test-python: setup
	$(PYTHON_IN_VENV) -m pytest --numprocesses $$(($$(nproc) < 4 ? $$(nproc) + 1 : 4)) --dist loadgroup

test-san: setup
	$(MAKE) --no-print-directory -j "$$(nproc)" -C tests/cpp sanitized

# ASAN: options of pytest
test-asan: setup
	VENV=$(VENV) tools/test_asan.sh $(ASAN)

# Programs for those who develop, which no test needs.
instruments: setup
	@cmp -s requirements-instruments.txt $(VENV)/.requirements-instruments.txt || \
	  { $(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check -r requirements-instruments.txt && \
	    cp requirements-instruments.txt $(VENV)/.requirements-instruments.txt; }

# TIDY: files, if not all
tidy: instruments
	VENV=$(VENV) tools/tidy.sh $(TIDY)

coverage: instruments
	VENV=$(VENV) tools/coverage.sh

# FAULTS: options of the program, as in make test-faults FAULTS='--seed 7 --scenarios 1 --kills 0'
test-faults: setup
	$(PYTHON_IN_VENV) tests/python/fault_campaign.py $(FAULTS)

# STRESS: options of the program
test-stress: setup
	$(PYTHON_IN_VENV) tests/python/stress_campaign.py $(STRESS)

# FUZZ_SECONDS for each parser, FUZZ_TARGETS="uri cipher_header" for some of them; what these are lists tests/fuzz/targets.h.
fuzz: setup
	$(MAKE) --no-print-directory -j "$$(nproc)" -C tests/fuzz run

test-dist: setup
	VENV=$(VENV) tools/test_dist.sh

test-cuda-build:
	tools/test_cuda_build.sh

demo: setup
	@cmp -s requirements-demo.txt $(VENV)/.requirements-demo.txt || \
	  { $(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check -r requirements-demo.txt && \
	    cp requirements-demo.txt $(VENV)/.requirements-demo.txt; }
	$(PYTHON_IN_VENV) examples/sentence_similarity.py
	$(PYTHON_IN_VENV) examples/convert_and_compare.py

# BENCH: options of the program, as in make bench BENCH='--cases load --json peers.json'
bench: setup
	$(PYTHON_IN_VENV) bench/peers.py $(BENCH)

bench-load: setup
	bash bench/io_bench.sh $(BENCH)

bench-gpu: setup
	$(PYTHON_IN_VENV) bench/gpu_bench.py $(BENCH)

clean:
	rm -rf build dist *.egg-info veturboio/lib/libveturboio.so
