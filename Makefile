# Each target does all the set-up that it needs, and none of it twice.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
FASHION := /usr/share/datasets/fashion-mnist
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nasaug

.PHONY: test test-full test-oldest arm cortex postgres demo bench bench-quick lint docs data browser setup

test: lint data browser
	OMP_NUM_THREADS=1 $(RUN) tests/held_to_avx2.py
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist worksteal --ignore tests/full tests

# What takes longer, or needs an emulator.
test-full: test arm cortex postgres
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests/full

# The oldest Python and torch that GPU machines have; needs python3.12.
test-oldest:
	$(MAKE) test VENV=.venv-oldest PYTHON=python3.12 PINS='torch==2.11.* torchvision==0.26.*'

demo: setup data
	$(RUN) benchmarks/demo.py

bench: setup
	$(RUN) benchmarks/bench.py --keep
	$(RUN) benchmarks/bench.py --levels
	$(RUN) benchmarks/growth.py

bench-quick: setup
	$(RUN) benchmarks/bench.py --quick

# mkdocs counts warnings as errors only without --quiet.
lint: setup
	$(RUN) -m ruff check
	$(RUN) -m mypy
	$(RUN) -m pytest -q -n 0 tests/test_layers.py -k 'one_way or each_other or rules'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --site-dir $(VENV)/site

# The documentation, into site/index.html.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

setup: $(READY)

$(READY): pyproject.toml
	$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -e '.[dev]' $(PINS)
	touch $@

# Fashion-MNIST: where nasaug looks for it, else as a Debian package, else left to the download at run time.
data:
	@test -n "$$(find -L $(FASHION) $(CACHE) "$${NASAUG_DATA:-$(CACHE)}" -name 'train-images-idx3-ubyte*' 2>/dev/null)" \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	     && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq dataset-fashion-mnist; } \
	|| echo "Fashion-MNIST is not on this machine: it is downloaded when first used"

# Chromium, with which the tests open the page that `report` writes; without it those tests are skipped.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	     && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	|| echo "Chromium is not on this machine: the tests that open a page in it are skipped"

# A cross compiler and an emulator, with which the kernels' NEON code is tested; without them those tests are skipped.
arm:
	@{ command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; } >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	     && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; } \
	|| echo "A cross compiler for ARM or qemu is not on this machine: the tests of the NEON kernels are skipped"

# A compiler and an emulator for Cortex-M, with which exported C is tested; without them those tests are skipped.
cortex:
	@{ command -v arm-none-eabi-gcc && command -v qemu-system-arm; } >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	     && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm; } \
	|| echo "A compiler for Cortex-M or qemu is not on this machine: the tests of exported C on it are skipped"

# A PostgreSQL server, which the tests of a shared study start on loopback; without it those tests are skipped.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	     && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } \
	|| echo "PostgreSQL is not on this machine: the tests of searches that share it are skipped"
