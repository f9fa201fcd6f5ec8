# `make run` and `make test` set up what they need, in either order. `make help` lists the rest.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
MODEL := models/packaged/SmolLM2-135M-Instruct/model.safetensors
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: run test test-vllm doctor plan profile compare compare-docs bench-extract bench-train sample-run lint types code-deps clean-work help

run: .venv/.run $(MODEL) ## run the whole pipeline; a second time, only what changed
	dvc repro

test: .venv/.test $(MODEL) ## run all tests, in JOBS=2 processes
	python -m pytest -n $(JOBS) --dist loadfile

test-vllm: .venv-vllm/.test $(MODEL) ## run the tests of the vLLM backend, on the CPU, in an environment of their own
	.venv-vllm/bin/python -m pytest tests/vllm

doctor: .venv/.run ## check params, data, models, disk and memory before any work
	python -m stages.doctor

plan: .venv/.run $(MODEL) ## tokens, cut shares, disk and hours, before any GPU work
	python -m stages.plan

lint: .venv/.test ## ruff
	ruff check . && ruff format --check .

types: .venv/.test ## mypy
	mypy

bench-extract: .venv/.run $(MODEL) ## time the extraction engine against the official way and two forward passes
	python -m benchmarks.extract $(ARGS)

bench-train: .venv/.test $(MODEL) ## time the trainer against TRL's DPOTrainer on the same pairs
	python -m benchmarks.train $(ARGS)

profile: .venv/.run ## write a profile into params.yaml: make profile NAME=clean
	python -m pipeline.config.profile $(NAME)

compare: .venv/.run $(MODEL) ## train the rows of compare/params.yaml from one start and write one table
	dvc repro compare/dvc.yaml

compare-docs: ## keep the table of the last comparison under docs/
	mkdir -p docs/compare
	cp reports/compare/* docs/compare/

sample-run: ## keep the report of the last run under docs/
	rm -rf docs/sample-run && mkdir -p docs/sample-run
	cp -r reports/index.md reports/figures docs/sample-run/

code-deps: .venv/.test ## write the code dependencies of all stages into dvc.yaml
	python -m tests.code_deps

clean-work: ## remove unfinished work of runs that will not be resumed
	rm -rf .work

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.venv/bin/python .venv-vllm/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(@:/bin/python=)

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $@ .venv/.run

# Without their dependencies: see the head of the file.
.venv-vllm/.test: .venv-vllm/bin/python pyproject.toml constraints-vllm.txt
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check --no-deps -r constraints-vllm.txt
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

$(MODEL): | .venv/.run
	python -c 'from pathlib import Path; from pipeline.models.packaged import ensure_packaged; ensure_packaged(Path.cwd())'
