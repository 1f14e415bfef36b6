# Each target makes what it needs first; what is there already is kept. See scripts/env/environment.py
# for the environment variables (COMFYUI_PATH, UAV_TORCH, ...).
# What each of the environments tests is in docs/development.md.

PYTHON ?= python3
ENVIRONMENT := $(PYTHON) -m scripts.env.environment
PYTEST_ARGS ?=

# How long PyTorch's threads wait for each other without giving their core away (GNU's OpenMP). The
# usual value, 30 times this, takes three times the processor time where others use the cores too.
export GOMP_SPINCOUNT ?= 10000

.PHONY: help demo pictures test test-newest test-oldest check bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo:  ## upscale the sample clip in a real ComfyUI
	$(ENVIRONMENT) --measures -- -m scripts.demo

pictures:  ## remake the pictures that depend on the included weights
	$(ENVIRONMENT) --measures --browser -- -m scripts.demo
	$(ENVIRONMENT) -- -m scripts.pictures.registry
	$(ENVIRONMENT) -- -m scripts.pictures.help_pictures
	$(ENVIRONMENT) -- -m scripts.pictures.help_screenshots
	$(ENVIRONMENT) -- -m scripts.pictures.make_thumbnail
	$(ENVIRONMENT) -- -m bench.tile_joints --clip assets/sample.mp4 --frames 1 --tile 48 \
		--picture docs/tile_joints.jpg

test:  ## all tests, with real ComfyUI servers and a real browser
	$(ENVIRONMENT) --all-comfyui --tools --browser -- -m pytest tests $(PYTEST_ARGS)

test-newest:  ## all tests on today's Python and packages, with dynamic memory
	UAV_DYNAMIC_VRAM=1 UAV_ENVIRONMENT=newest $(ENVIRONMENT) --all-comfyui --tools --browser -- \
		-m pytest tests $(PYTEST_ARGS)

test-oldest:  ## the tests of the core on the oldest Python and packages
	UAV_ENVIRONMENT=oldest $(ENVIRONMENT) --tools -- -m pytest tests/core tests/bench tests/scripts $(PYTEST_ARGS)

check:  ## formatting, lint, types and the fast tests
	$(ENVIRONMENT) --tools -- -m ruff format --check
	$(ENVIRONMENT) --tools -- -m ruff check
	$(ENVIRONMENT) --tools -- -m pyright
	$(ENVIRONMENT) --tools -- -m pytest tests/core tests/nodes tests/bench tests/scripts -m "not slow" $(PYTEST_ARGS)

bench:  ## time and memory against plain eager code, and the memory of long videos
	$(ENVIRONMENT) --tools -- -m bench

clean:  ## remove caches and outputs; the environment in .dev stays
	rm -rf output build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.dev/*' -prune -exec rm -rf {} +
