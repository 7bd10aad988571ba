# Two commands: `make demo` does the main job on the sample town, `make test` runs the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(CURDIR)/.gtft-demo

.PHONY: help demo test lint format install tools llama clean

help:
	@echo "make demo     a whole run on the sample town, up to a reviewed model card"
	@echo "make test     the tests"
	@echo "make lint     ruff and mypy --strict"
	@echo "make format   ruff format"
	@echo "make install  the environment that the others use (.venv)"
	@echo "make tools    real dolt, bd and gt for the tests of a town (.tools; needs Go)"
	@echo "make llama    llama.cpp as a library and a server, to verify GGUF exports (built from source: minutes)"
	@echo "make clean    remove .venv and the demo's workspace"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gtft needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary hivemind -c constraints.txt -e '.[train,serve,swarm,dev]'
	@touch $@

demo: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh "$(DEMO)"

# A file at a time on each core; then what needs the box for itself.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not alone'
	$(BIN)/python -m pytest -m alone

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tools:
	scripts/town-tools

# Only this package and its server: the environment itself stays as it is while others use it.
llama: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'llama-cpp-python[server]'

clean:
	rm -rf $(VENV) $(DEMO)
