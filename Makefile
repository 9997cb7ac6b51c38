# make demo   a 4-bit student learns from a larger detector (see README)
# make test   the tests, in two processes
# make edge   the tests that need the runtimes of small devices
# make quick  the tests without those marked slow
# make lint   ruff and mypy
# make docs   the documentation site, in docs/_build
# make env    the virtual environment all of these use
# STACK=onedl chooses the maintained fork's packages, in a venv of its own.

STACK ?= openmmlab
PYTHON ?= python3
TORCH := torch==2.13.0

ifeq ($(STACK),openmmlab)
VENV := .venv
MMCV := mmcv 2.1.0
else ifeq ($(STACK),onedl)
VENV := .venv-onedl
MMCV := onedl-mmcv 2.3.6
else
$(error STACK=$(STACK) is unknown; expected openmmlab or onedl)
endif

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.mmgor-env
REQUIREMENTS := requirements/common.txt requirements/deploy.txt \
    requirements/docs.txt requirements/experiments.txt \
    requirements/$(STACK).txt
# The runtimes of small devices, on top of the environment above.
EDGE := $(VENV)-edge
EDGE_PY := $(EDGE)/bin/python
EDGE_STAMP := $(EDGE)/.mmgor-env
EDGE_TESTS := tests/deploy/litert tests/deploy/executorch tests/deploy/ncnn \
    tests/deploy/runtime tests/deploy/description
WORK_DIR ?= work_dirs/demo
# Two processes; the tests of a file stay together, as they share fixtures.
PYTEST := -m pytest -q -n 2 --dist loadfile
SMOKE := work_dirs/smoke-$(STACK)
SEEDS ?= 0

.PHONY: env demo test edge quick lint docs smoke clean help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

env: $(STAMP)

# torch first and alone: what depends on it would pull the newest build.
# setuptools: mmcv needs pkg_resources (below 81), others SPDX licences (77).
$(STAMP): $(REQUIREMENTS) pyproject.toml Makefile scripts/build_mmcv.sh \
    scripts/fix_opencv.sh
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  assert (3, 10) <= v <= (3, 12), \
	  f"expected Python 3.10 to 3.12, got {v}; try make PYTHON=python3.11"'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q "setuptools>=77,<81" wheel ninja psutil packaging $(TORCH)
	$(PIP) install -q $(TORCH) -r requirements/common.txt \
	  -r requirements/deploy.txt -r requirements/docs.txt \
	  -r requirements/experiments.txt
	$(PIP) install -q --no-build-isolation $(TORCH) -r requirements/$(STACK).txt
	scripts/fix_opencv.sh $(VENV)
	scripts/build_mmcv.sh $(VENV) $(MMCV)
	$(PIP) install -q --no-build-isolation --no-deps -e .
	$(PY) -W ignore -c 'import mmgor; print("mmgor", mmgor.__version__)'
	@touch $@

# A line of a .pth file that adds the packages of the first environment.
$(EDGE_STAMP): $(STAMP) requirements/edge.txt
	test -x $(EDGE_PY) || $(PYTHON) -m venv $(EDGE)
	$(EDGE_PY) -c 'import sys, sysconfig; from pathlib import Path; \
	  here = Path(sysconfig.get_path("purelib")); \
	  there = Path("$(VENV)").resolve() / here.relative_to(sys.prefix); \
	  (here / "mmgor.pth").write_text( \
	    f"import site; site.addsitedir({str(there)!r})")'
	$(EDGE_PY) -m pip --disable-pip-version-check install -q $(TORCH) \
	  -r requirements/edge.txt
	@touch $@

demo: env
	$(PY) -W ignore -m experiments.demo --work-dir "$(WORK_DIR)" --seeds $(SEEDS) \
	  $(if $(DATA),--data "$(DATA)") $(if $(ARMS),--arms $(ARMS)) \
	  $(if $(TEACHER_BACKBONE),--teacher-backbone "$(TEACHER_BACKBONE)") \
	  $(DEMO_ARGS)

# The demo at its smallest size, and the test tool on what it trained.
smoke: env
	$(PY) -W ignore -m experiments.demo --smoke --work-dir $(SMOKE)
	$(PY) -W ignore tools/test.py \
	  $(SMOKE)/runs/scenes/gor/W4A4/seed0/config.py \
	  $(SMOKE)/runs/scenes/gor/W4A4/seed0/epoch_1.pth \
	  --work-dir $(SMOKE)/test

test: env
	$(PY) $(PYTEST)

edge: $(EDGE_STAMP)
	$(EDGE_PY) $(PYTEST) $(EDGE_TESTS)

quick: env
	$(PY) $(PYTEST) -m "not slow"

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Strict: a warning, a dead link or a missing reference fails.
docs: env
	rm -rf docs/api
	$(PY) -W ignore -m sphinx -q -b html -W -n --keep-going docs docs/_build

clean:
	rm -rf build docs/_build docs/api *.egg-info .pytest_cache .ruff_cache .mypy_cache
