# make demo   a 4-bit student learns from a larger detector (see README)
# make test   the tests, in two processes
# make edge   the tests that need the runtimes of small devices
# make mmyolo the tests that need MMYOLO, MMPretrain or timm
# make zoo    converts the configs of MMDetection's model zoo (an hour)
# make gpu-check  tests, times and a training on a GPU, into one JSON file
# make quick  the tests without those marked slow
# make lint   ruff and mypy
# make docs   the documentation site, in docs/_build
# make env    the virtual environment all of these use
# STACK=onedl chooses the maintained fork's packages, in a venv of its own;
# STACK=mmyolo adds MMYOLO, MMPretrain and timm to OpenMMLab's, in a small venv
# on top of theirs.

STACK ?= openmmlab
PYTHON ?= python3
TORCH := torch==2.13.0

BASE := $(if $(filter mmyolo,$(STACK)),openmmlab,$(STACK))
ifeq ($(BASE),openmmlab)
VENV := .venv
MMCV := mmcv 2.1.0
else ifeq ($(BASE),onedl)
VENV := .venv-onedl
MMCV := onedl-mmcv 2.3.6
else
$(error STACK=$(STACK) is unknown; expected openmmlab, onedl or mmyolo)
endif

BASE_PY := $(VENV)/bin/python
PIP := $(BASE_PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.mmgor-env
REQUIREMENTS := requirements/common.txt requirements/deploy.txt \
    requirements/docs.txt requirements/experiments.txt \
    requirements/$(BASE).txt
# The runtimes of small devices, on top of the environment above.
EDGE := $(VENV)-edge
EDGE_PY := $(EDGE)/bin/python
EDGE_STAMP := $(EDGE)/.mmgor-env
EDGE_TESTS := tests/deploy/litert tests/deploy/executorch tests/deploy/ncnn \
    tests/deploy/runtime tests/deploy/description
# MMYOLO, MMPretrain and timm, on top of the environment above, too.
MMYOLO := $(VENV)-mmyolo
MMYOLO_PY := $(MMYOLO)/bin/python
MMYOLO_STAMP := $(MMYOLO)/.mmgor-env
ifeq ($(STACK),mmyolo)
PY := $(MMYOLO_PY)
ENV := $(MMYOLO_STAMP)
else
PY := $(BASE_PY)
ENV := $(STAMP)
endif
WORK_DIR ?= work_dirs/demo
# Two processes; the tests of a file stay together, as they share fixtures.
PYTEST := -m pytest -q -n 2 --dist loadfile
SMOKE := work_dirs/smoke-$(STACK)
SEEDS ?= 0

.PHONY: env env-edge demo test edge mmyolo zoo quick lint docs smoke gpu-check clean help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

env: $(ENV)

# torch first and alone: what depends on it would pull the newest build.
# setuptools: mmcv needs pkg_resources (below 81), others SPDX licences (77).
$(STAMP): $(REQUIREMENTS) pyproject.toml Makefile scripts/build_mmcv.sh \
    scripts/fix_opencv.sh
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  assert (3, 10) <= v <= (3, 12), \
	  f"expected Python 3.10 to 3.12, got {v}; try make PYTHON=python3.11"'
	test -x $(BASE_PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q "setuptools>=77,<81" wheel ninja psutil packaging $(TORCH)
	$(PIP) install -q $(TORCH) -r requirements/common.txt \
	  -r requirements/deploy.txt -r requirements/docs.txt \
	  -r requirements/experiments.txt
	$(PIP) install -q --no-build-isolation $(TORCH) -r requirements/$(BASE).txt
	scripts/fix_opencv.sh $(VENV)
	scripts/build_mmcv.sh $(VENV) $(MMCV)
	$(PIP) install -q --no-build-isolation --no-deps -e .
	$(BASE_PY) -W ignore -c 'import mmgor; print("mmgor", mmgor.__version__)'
	@touch $@

# $(call on_top,VENV): a venv with a line of a .pth file that adds the packages
# of the first environment.
define on_top
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -c 'import sys, sysconfig; from pathlib import Path; \
	  here = Path(sysconfig.get_path("purelib")); \
	  there = Path("$(VENV)").resolve() / here.relative_to(sys.prefix); \
	  (here / "mmgor.pth").write_text( \
	    f"import site; site.addsitedir({str(there)!r})")'
endef

$(EDGE_STAMP): $(STAMP) requirements/edge.txt
	$(call on_top,$(EDGE))
	$(EDGE_PY) -m pip --disable-pip-version-check install -q $(TORCH) \
	  -r requirements/edge.txt
	@touch $@

$(MMYOLO_STAMP): $(STAMP) requirements/mmyolo.txt scripts/fix_mmyolo.sh \
    scripts/fix_torchvision.sh
	$(call on_top,$(MMYOLO))
	$(MMYOLO_PY) -m pip --disable-pip-version-check install -q $(TORCH) \
	  -r requirements/mmyolo.txt
	scripts/fix_torchvision.sh $(MMYOLO)
	scripts/fix_mmyolo.sh $(MMYOLO)
	@touch $@

demo: env
	$(PY) -W ignore -m experiments.demo --work-dir "$(WORK_DIR)" --seeds $(SEEDS) \
	  $(if $(DATA),--data "$(DATA)") $(if $(ARMS),--arms $(ARMS)) \
	  $(if $(TEACHER_BACKBONE),--teacher-backbone "$(TEACHER_BACKBONE)") \
	  $(DEMO_ARGS)

# Uses what is installed: a GPU needs other wheels than `make env` chooses.
gpu-check:
	$(PYTHON) -W ignore benchmarks/gpu_check.py

# The demo at its smallest size, and the test tool on what it trained.
smoke: env
	$(PY) -W ignore -m experiments.demo --smoke --work-dir $(SMOKE)
	$(PY) -W ignore tools/test.py \
	  $(SMOKE)/runs/scenes/gor/W4A4/seed0/config.py \
	  $(SMOKE)/runs/scenes/gor/W4A4/seed0/epoch_1.pth \
	  --work-dir $(SMOKE)/test

test: env
	$(PY) $(PYTEST)

env-edge: $(EDGE_STAMP)

edge: env-edge
	$(EDGE_PY) $(PYTEST) $(EDGE_TESTS)

mmyolo: $(MMYOLO_STAMP)
	$(MMYOLO_PY) $(PYTEST) tests/mmyolo tests/mmpretrain \
	  tests/quantization/layers/test_timm_layers.py

# One config per algorithm, or as many as ZOO_ARGS="--per-folder 2" says.
zoo: env
	$(PY) -W ignore -m tests.zoo --out work_dirs/zoo.jsonl $(ZOO_ARGS)

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
