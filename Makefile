# make demo   installs into .venv, runs every method on the embedded dataset, prints where the report is
# make test   installs into .venv, runs all checks and tests that fit on two cores
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# the package as it is imported, with the mapped folders in it: what mypy looks at
TYPES := build/types
# packages as `stbench new` writes them, whose types are looked at too
NEW := build/new
# one thread a process where several test processes share the cores
WORKERS ?= 2
# the share of lines, in percent, that tests run may not fall below. After the tests, build/coverage.txt names the lines
# that none runs. `make test COVERAGE=` counts nothing
COVERAGE ?= 94
COUNTS := build/coverage.json

# sources are compiled once, at the install (which uv leaves out) and at the first import of our own; where nothing is
# kept, every process compiles torch again, for many seconds
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fast-tests test-template test-engines test-slow test-gpu lint benchmark clean

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/stbench run --methods all --dataset demo --preset quick --slots 2 --out results/demo
	$(BIN)/stbench report results/demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPES) $(NEW) && mkdir -p $(TYPES)/stbench
	$(BIN)/stbench new method new_torch --out $(NEW) >$(TYPES)/written
	$(BIN)/stbench new method new_numpy --numpy --out $(NEW) >>$(TYPES)/written
	$(BIN)/stbench new dataset new_dataset --out $(NEW) >>$(TYPES)/written
	ln -s $(addprefix $(CURDIR)/,$(wildcard stbench/*) methods datasets reports) $(TYPES)/stbench/
	ln -s $(CURDIR)/$(NEW)/*/src/* $(TYPES)/
	cd $(TYPES) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache \
	  -p stbench -p new_torch -p new_numpy -p new_dataset

# lint has one process, so the tests need not wait for it
test: $(READY)
	$(MAKE) --jobs 2 lint fast-tests

fast-tests: $(READY)
	mkdir -p build
	OMP_NUM_THREADS=1 $(BIN)/python $(if $(COVERAGE),-m slipcover --json --out $(COUNTS)) \
	  -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu"
ifdef COVERAGE
	@$(BIN)/python -m slipcover --fail-under $(COVERAGE) --out $(COUNTS) --merge $(COUNTS) >build/coverage.txt || \
	  { tail -n 1 build/coverage.txt; echo "tests run less than $(COVERAGE) % of the lines, see build/coverage.txt"; exit 1; }
	@echo "lines, lines that no test runs, and percent that are run: $$(tail -n 1 build/coverage.txt)"
endif

# a package from each template, installed into an environment of its own: listed, checked, run, and gone again
test-template: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m slow tests/test_new_packages.py

# what every engine has to do, on a real Ray, which is installed, and on a real Slurm, if its programs are there
test-engines: $(READY)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt \
	  --editable '.[dev,ray]' || echo "Ray cannot be installed: its test will be skipped"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m slow -k every_trial_ends_as_it_should \
	  tests/stbench/test_ray.py tests/stbench/test_slurm_limits.py

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

benchmark: $(READY)
	$(BIN)/python -m pytest benchmarks -m "not gpu" --benchmark-columns=median,rounds

clean:
	rm -rf $(VENV) results build dist *.egg-info
