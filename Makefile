# Every target sets up what it needs; nothing is done twice.
PYTHON ?= python3
INSTALL = .venv/bin/python -m pip install --disable-pip-version-check --progress-bar on
LOCK = --quiet --no-header --no-annotate --no-emit-index-url

export FSDET_CACHE ?= $(CURDIR)/.cache

.PHONY: sweep test test-fast test-gpu drills fuzz ui check stage1 stage2 lock clean help

sweep: .venv/installed  ## the main job: sweep stage 2 on the embedded data
	.venv/bin/python -m sweeps.run stage2_clip_dfl.yaml --name auto

test: .venv/installed-dev  ## all tests
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-fast: .venv/installed-dev  ## all but the slow tests
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

test-gpu: .venv/installed-dev  ## the tests that need a CUDA device
	.venv/bin/python -m pytest tests -m gpu

drills: .venv/installed-dev  ## break sweeps in every way and look at what is left (about 20 minutes)
	PYTHONPATH=. .venv/bin/python benchmarks/drills.py

fuzz: .venv/installed-dev  ## feed all commands damaged files and senseless flags (5 minutes)
	PYTHONPATH=. .venv/bin/python benchmarks/fuzz.py

ui: .venv/installed  ## browse what was logged, on 127.0.0.1 only
	.venv/bin/python -m sweeps.ui

check: .venv/installed-dev  ## lint, types, import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

stage1: .venv/installed  ## retrain the shipped stage-1 checkpoint (about 20 CPU minutes)
	.venv/bin/python -m fsdet.train --config fsdet/checkpoints/stage1_openmoji.yaml
	.venv/bin/python -m fsdet.export checkpoints/stage1 fsdet/checkpoints/stage1_openmoji.pt

stage2: .venv/installed  ## a long stage 2 from the shipped checkpoint (about 10 CPU minutes)
	.venv/bin/python -m fsdet.train --config fsdet/checkpoints/stage2_long.yaml

lock: .venv/installed-dev  ## pin the newest versions
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip compile $(LOCK) --extra dev pyproject.toml -o requirements-dev.lock
	.venv/bin/uv pip compile $(LOCK) -c requirements-dev.lock pyproject.toml -o requirements.lock
	# the build without a screen needs no system library; the lock files are complete, so --no-deps holds
	sed -i 's/^opencv-python==/opencv-python-headless==/' requirements.lock requirements-dev.lock

clean:  ## remove the environment and the decoded images, keep all results
	rm -rf .venv .cache build *.egg-info

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 12

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing the pinned dependencies into .venv (some minutes, 7 GB)"
	$(INSTALL) --no-deps -r requirements.lock
	$(INSTALL) --no-deps -e .
	@touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	$(INSTALL) --no-deps -r requirements-dev.lock
	@touch $@
