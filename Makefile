# The one task file; CI calls the same targets. Everything happens in .venv, made from nothing.

PYTHON ?= python3.11
BIN := .venv/bin
CONSTRAINTS := constraints.txt

.PHONY: setup setup-bench setup-dev demo test test-slow lint bench pretrained docs clean

setup: .venv/setup
setup-dev: .venv/setup-dev
setup-bench: .venv/setup-bench

# Without a C compiler, the one in the ziglang package links the compiled models.
.venv/setup: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	@command -v cc gcc clang >/dev/null && extra= || extra='[link]'; \
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".$$extra"
	touch $@

.venv/setup-dev: .venv/setup
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e '.[dev,postgres]'
	touch $@

.venv/setup-bench: .venv/setup
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e '.[bench]'
	touch $@

demo: setup
	$(BIN)/autotune run squeezenet --minutes 3 --out autotune-out/demo

# A file of tests to each core; the slow suite times things and has the machine to itself.
test: setup-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup-dev
	$(BIN)/python -m pytest -q -m slow

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup-bench
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.search --seeds 1
	$(BIN)/python -m benchmarks.vendor
	$(BIN)/python -m benchmarks.models
	$(BIN)/python -m benchmarks.costmodels

# Trains the cost models that come with the program anew, from the measurements that come with it.
pretrained: setup
	rm -rf build/pretrained && mkdir -p build/pretrained
	$(BIN)/autotune db import data/training.jsonl.gz --db build/pretrained/training.db
	for kind in lstm gnn; do \
		$(BIN)/autotune train --model $$kind --db build/pretrained/training.db --name $$kind \
			--out costmodels/pretrained/$$kind.safetensors || exit 1; \
	done

docs: setup-dev
	$(BIN)/python -m docs.generate

clean:
	rm -rf .venv build dist *.egg-info
