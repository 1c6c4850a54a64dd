# Needs Python 3.11 or newer and make; everything else is installed into .venv.
#   make quickstart   install, pre-train on examples/sounds, evaluate, write the report
#   make test         install, run the tests (`make test-slow` for the long ones)
#   make lint         ruff, mypy, the layers of imports, workflow files, the documentation as a site
#   make docs         show the documentation as a site at http://127.0.0.1:8000
# PYTHON=/path/to/python3.12 chooses the Python that .venv is made with.

PYTHON ?= python3
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
PINS := pyproject.toml constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Python compiles a module when it is first imported; pip would compile all 19,000 files, which takes two minutes.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/python -m pip install --no-compile --constraint constraints.txt
# m2dx and the plugins are built with the hatchling of .venv: pip would make an environment for each, which takes a minute.
# What they need is installed after that, as pip does it.
BUILD := $(PIP_INSTALL) --quiet hatchling editables && \
  $(PIP_INSTALL) --quiet --no-deps --no-build-isolation --editable . $(PLUGINS:%=--editable %)
# One thread per test process: more of them than cores make each other wait.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PYTEST_WORKERS) --dist worksteal

.PHONY: quickstart test test-slow lint lint-types lint-others docs clean distclean

# Its news about later versions.
export NO_MKDOCS_2_WARNING := 1

quickstart: $(INSTALLED)
	$(BIN)/m2dx train recipes/quickstart.yaml --overwrite

test: $(INSTALLED_DEV)
	$(PYTEST) -m "not slow and not gpu" $(PYTEST_ARGS)

test-slow: $(INSTALLED_DEV)
	$(PYTEST) -m "slow and not gpu" $(PYTEST_ARGS)

# mypy takes as long as the others together, so `make --jobs=2 lint` takes half the time.
lint: lint-types lint-others

lint-types: $(INSTALLED_DEV)
	$(BIN)/mypy

lint-others: $(INSTALLED_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

docs: $(INSTALLED_DEV)
	$(BIN)/mkdocs serve

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "m2dx needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1);" \
	    "name a newer one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(INSTALLED): $(CREATED) $(PINS) $(PLUGINS:%=%/pyproject.toml)
	@echo "Installing m2dx and what it needs into $(VENV) (PyTorch is large: a few minutes)"
	$(BUILD)
	$(PIP_INSTALL) m2dx $(notdir $(PLUGINS))
	@touch $@

$(INSTALLED_DEV): $(CREATED) $(PINS) $(PLUGINS:%=%/pyproject.toml)
	@echo "Installing m2dx and what its tests need into $(VENV) (PyTorch is large: a few minutes)"
	$(BUILD)
	$(PIP_INSTALL) 'm2dx[dev]' $(notdir $(PLUGINS))
	@touch $@ $(INSTALLED)
