# Everything happens in .venv, made on first use; nothing is installed beside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo serve test test-postgresql lint bench conformance clean

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tonnage needs Python 3.11 or newer; set PYTHON=/path/to/it"; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { echo "tonnage's runtime is built with a C++ compiler: install one (Debian: apt install g++ make)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@echo "installing; llama.cpp is compiled once, which takes some minutes"
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/python demo/demo.py

serve: $(READY)
	@$(BIN)/python demo/demo.py --serve

test: $(READY)
	$(BIN)/pytest

# the same with every test's rows in PostgreSQL, on the server that TONNAGE_TEST_POSTGRES names
test-postgresql: $(READY)
	@test -n "$(TONNAGE_TEST_POSTGRES)" || { echo "set TONNAGE_TEST_POSTGRES to the URL of a server where databases may be made"; exit 1; }
	TONNAGE_TEST_DATABASE=postgresql $(BIN)/pytest tests/auth tests/storage tests/registry

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# the official suite's binary, built elsewhere: OCI_CONFORMANCE=/path make conformance
conformance: $(READY)
	@test -x "$(OCI_CONFORMANCE)" || { echo "set OCI_CONFORMANCE to the official suite's binary"; exit 1; }
	$(BIN)/python -m tests.registry.conformance.official "$(OCI_CONFORMANCE)"

bench: $(READY)
	$(BIN)/python benchmarks/streams.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build ./*.egg-info
