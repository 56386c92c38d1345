# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check lint types slow torture clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: check
check: lint types $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/python -m ruff check src tests examples recipes benchmarks
	$(BIN)/python -m ruff format --check src tests examples recipes benchmarks

types: $(INSTALLED)
	$(BIN)/python -m mypy

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout 3600

torture: $(INSTALLED)
	$(BIN)/python -m pytest -m torture --timeout 7200

clean:
	rm -rf .venv runs demo dist
