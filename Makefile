# One word a command. `make demo` and `make test` do all their set-up themselves.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PYDOCLINT := pydoclint==0.12.0
UV := uv==0.13.9
AUDIT := pip-audit==2.10.1
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: help setup demo test test-slow lint repro study chaos fuzz screens bench constraints hashes vulnerabilities clean

help:
	@echo "make demo       a four-site federation on synthetic patients, with report"
	@echo "make test       the fast tests (make test-slow: learning and kill tests)"
	@echo "make lint       ruff, mypy strict, import-linter, pydoclint"
	@echo "make repro      the same pipeline as DVC stages"
	@echo "make study      methods × scenarios × seeds on ACDC in acdc/ (hours)"
	@echo "make chaos      kills, outages and damage in a live federation (an hour or more)"
	@echo "make fuzz       100,000 mutated packages, records and invitations (two minutes)"
	@echo "make screens    the pictures of the operations guide (ten minutes, wants chromium)"
	@echo "make bench      time of a local step, time and memory of a merge of 200 sites"
	@echo "make vulnerabilities   what a public database knows against the pins"
	@echo "make clean      delete runs/ and data/"

setup: .venv/ready

# Every file is checked against hashes.txt, but torch's and those of its CUDA libraries: every kind of machine has others.
.venv/ready: pyproject.toml constraints.txt hashes.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "error: Python 3.11 is needed, found $$($(PYTHON) --version)"; \
		  echo "  mend:  make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	sed -n '/^setuptools==/,/[^\\]$$/p' hashes.txt > .venv/setuptools.txt
	$(PIP) --require-hashes --no-deps --requirement .venv/setuptools.txt
	$(PIP) --require-hashes --no-deps --no-build-isolation --use-pep517 --requirement hashes.txt
	$(PIP) --constraint constraints.txt torch==2.13.0
	$(PIP) --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/cardiofed demo

test: setup
	$(BIN)/pytest -m "not slow" --numprocesses logical --dist loadfile

test-slow: setup
	$(BIN)/pytest -m slow --timeout 1800 --ignore tests/chaos

lint: setup .venv/pydoclint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	.venv/pydoclint/bin/pydoclint --quiet flows tasks model infra

# pydoclint's parser and the one Prefect's command line needs share a module name: it gets a house of its own.
.venv/pydoclint: .venv/ready
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check $(PYDOCLINT)

repro: export PATH := $(CURDIR)/$(BIN):$(PATH)
repro: setup
	$(BIN)/cardiofed data make
	$(BIN)/dvc repro report
	$(BIN)/dvc metrics show

study: export PATH := $(CURDIR)/$(BIN):$(PATH)
study: setup
	$(BIN)/cardiofed study run
	$(BIN)/dvc repro study

chaos: export CHAOS_TABLE := docs/results/chaos.md
chaos: setup
	$(BIN)/pytest -m slow --timeout 1800 tests/chaos

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --cases 100000

screens: setup
	$(BIN)/python docs/screens/take.py

bench: setup
	$(BIN)/cardiofed bench steps
	$(BIN)/cardiofed bench merge

constraints: setup
	{ head -1 constraints.txt; $(BIN)/pip freeze --all --exclude-editable | sed 's/+cpu$$//' | grep -v '^pip=='; } > .constraints.tmp
	mv .constraints.tmp constraints.txt

# uv and pip-audit need other versions of what we pin: a house of their own, too.
hashes: setup .venv/uv
	grep -v '^torch==' constraints.txt | .venv/uv/bin/uv pip compile --quiet --no-deps --universal --python-version 3.11 \
		--no-header --no-annotate --format pylock.toml --output-file .venv/pylock.toml -
	$(BIN)/python -m infra.pin_hashes .venv/pylock.toml > .hashes.tmp
	mv .hashes.tmp hashes.txt

vulnerabilities: setup .venv/pip-audit
	$(BIN)/cardiofed dependencies --vulnerabilities

.venv/uv .venv/pip-audit: .venv/ready
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check $(if $(filter %uv,$@),$(UV),$(AUDIT))

clean:
	rm -rf runs data
