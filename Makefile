# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first; `make setup` does only that.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup demo test check lint types docs slow torture clean

$(INSTALLED): pyproject.toml constraints.txt
	@echo 'Setting up .venv: some minutes, and gigabytes, most of them torch'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

setup: $(INSTALLED)
	@test ! -d .git || $(BIN)/pre-commit install

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: check
check: lint types $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/python -m ruff check src tests examples recipes benchmarks docs
	$(BIN)/python -m ruff format --check src tests examples recipes benchmarks docs/*.py

types: $(INSTALLED)
	$(BIN)/python -m mypy

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict
	@echo 'open it with: $(BIN)/mkdocs serve'

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout 3600

torture: $(INSTALLED)
	$(BIN)/python -m pytest -m torture --timeout 7200

clean:
	rm -rf .venv runs demo dist site
