# make demo    new views of a real scanned object from six images, with the weights in the package
# make test    checks and tests
# make check   ruff, pyright, import-linter

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo
EXAMPLE := examples/captures/school_bus

.PHONY: demo test check pytest system clean

demo: $(VENV)/.core
	$(BIN)/kaleidoscene render $(EXAMPLE) --out $(OUT) --references 0-2,27-29 --targets 3-26 --image-size 256 --overwrite

test: check system pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Two processes of one thread each; shapes are checked in all tests but those marked slow. They start many others: what
# is compiled once is kept for them, whatever the environment says.
pytest: $(VENV)/.dev
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

# OpenGL without a screen, for the mesh renderer, and a browser, for the pages that are written; tests that need what
# cannot be had skip.
system:
	@ldconfig -p | grep -q libEGL.so.1 && ldconfig -p | grep -q libGL.so.1 && command -v chromium >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends libegl1 libgl1 libgl1-mesa-dri chromium >/dev/null; } || \
	  echo "libEGL or Chromium is missing and cannot be installed here: the tests that need them will skip"

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . -c constraints.txt
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	# LPIPS asks for torchvision, which has no build for every torch; its test brings the two networks itself.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps lpips==0.1.4
	# Of evo the tests need what works with NumPy alone; all it asks for is twenty packages.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps evo==1.38.1
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) out
