# `make demo` and `make test` set up everything they need, inside this directory.
#
#   make demo    an ensemble of a real network: plan, times, memory, bit comparison, demo.png
#   make test    lint, types and the whole suite, on the oldest and the newest supported end
#   make test-all  the same, and what the ends share in `make test` on each of them: for the night
#   make bench   the benchmark tables and plots, into benchmarks/results/
#   make format  rewrite the sources in the project's format
PYTHON ?= python3
NEWEST ?= $(shell $(PYTHON) tools/newest_python.py)
OLDEST_JAX := 0.10.0

.PHONY: demo test test-all test-oldest test-newest lint bench format clean

# With what it needs alone, and not what tests and lint need.
demo: .venv-demo/installed
	.venv-demo/bin/seedbed demo

# The oldest end: this Python with the oldest jax; the newest: the newest Python and jax found.
# The two run side by side, each in one process.
test:
	$(MAKE) --no-print-directory -j2 --output-sync=target test-oldest test-newest

test-oldest: .venv-oldest/installed
	sh tools/run_tests.sh .venv-oldest oldest

test-newest: .venv/installed lint
	sh tools/run_tests.sh .venv newest

test-all: .venv/installed .venv-oldest/installed lint
	sh tools/run_tests.sh .venv all
	sh tools/run_tests.sh .venv-oldest all

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror $$(find csrc tests/native -name '*.h' -o -name '*.cc' -o -name '*.cu')

format: .venv/installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/clang-format -i $$(find csrc tests/native -name '*.h' -o -name '*.cc' -o -name '*.cu')

bench: .venv/installed
	.venv/bin/python -m benchmarks

SOURCES := $(shell find csrc python -name '*.py' -o -name '*.pyi' -o -name '*.h' -o -name '*.cc' \
             -o -name '*.cu' -o -name '*.json') CMakeLists.txt cmake/cuda.cmake pyproject.toml tools/make_env.sh

.venv/installed: $(SOURCES)
	sh tools/make_env.sh $(NEWEST) .venv test,lint,demo,examples

.venv-demo/installed: $(SOURCES)
	sh tools/make_env.sh $(NEWEST) .venv-demo demo

.venv-oldest/installed: $(SOURCES)
	sh tools/make_env.sh $(PYTHON) .venv-oldest test,lint,demo,examples jax==$(OLDEST_JAX) jaxlib==$(OLDEST_JAX)

clean:
	rm -rf .venv .venv-demo .venv-oldest build
