# make demo and make test are the two commands of the README: each sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PACKAGE := zoo export runtime cli __init__.py __main__.py api.py errors.py py.typed

.PHONY: dev demo check test test-slow test-gpu wheel test-wheel bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,dev]"
	touch $@

dev: $(VENV)/.installed .typing/dlzoo   ## the environment, with an editable install

# Type checkers do not run setuptools' import hook, so show them the same tree as links.
.typing/dlzoo: Makefile
	mkdir -p $@ && ln -sfn $(addprefix ../../,$(PACKAGE)) $@ && touch $@

demo: $(VENV)/.installed      ## export vgg16, prove it, replay the proof
	$(BIN)/dlzoo export vgg16 -o demo/vgg16 --force
	$(BIN)/dlzoo verify demo/vgg16

check: dev                    ## lint, format and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

test: $(VENV)/.installed      ## every test that needs no GPU
	$(BIN)/python -m pytest -m "not gpu and not slow"

test-slow: $(VENV)/.installed ## what takes too long for every change
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.installed  ## what needs a CUDA device and onnxruntime-gpu
	$(BIN)/python -m pytest -m gpu

wheel: $(VENV)/.installed     ## sdist first: an in-tree build can ship deleted modules from build/
	rm -rf dist && $(BIN)/python -m build --installer pip . 2>/dev/null || $(BIN)/python -m build

clean:
	rm -rf $(VENV) .typing dist build demo *.egg-info
