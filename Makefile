# Two commands: `make demo` does the main job on the sample town, `make test` runs the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(CURDIR)/.gtft-demo

.PHONY: help demo test lint format install tools clean

help:
	@echo "make demo     a whole run on the sample town, up to a reviewed model card"
	@echo "make test     the tests"
	@echo "make lint     ruff and mypy --strict"
	@echo "make format   ruff format"
	@echo "make install  the environment that the others use (.venv)"
	@echo "make tools    real dolt, bd and gt for the tests of a town (.tools; needs Go)"
	@echo "make clean    remove .venv and the demo's workspace"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gtft needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary hivemind -c constraints.txt -e '.[train,swarm,dev]'
	@touch $@

demo: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh "$(DEMO)"

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tools:
	scripts/town-tools

clean:
	rm -rf $(VENV) $(DEMO)
