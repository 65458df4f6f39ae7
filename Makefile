# make demo and make test are the two commands of the README: each sets up what it needs.
PYTHON ?= python3
WORKERS ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
PACKAGE := zoo export runtime cli __init__.py __main__.py api.py errors.py image_file.py \
	pytest_plugin.py testing.py version.py py.typed

.PHONY: dev demo native check test test-slow test-gpu wheel test-wheel bench clean

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

native: $(VENV)/.installed    ## the native kernels, with this machine's C++ compiler
	$(BIN)/python -m dlzoo.export.lowering.native

check: dev                    ## lint, format and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# One thread in each of the test processes: they share the cores.
test: $(VENV)/.installed      ## every test that needs no GPU, in $(WORKERS) processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not slow" -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/.installed ## what takes too long for every change
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.installed  ## what needs a CUDA device and onnxruntime-gpu
	$(BIN)/python -m pytest -m gpu

wheel: $(VENV)/.installed     ## sdist first: an in-tree build can ship deleted modules from build/
	rm -rf dist && $(BIN)/python -m build --quiet

# In an environment of its own, or the editable install would be tested again.
test-wheel: wheel             ## what a user gets: the installed wheel, its commands and its API
	rm -rf .venv-wheel && $(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		"$$(ls dist/*.whl)[cpu]" pytest pytest-timeout
	.venv-wheel/bin/python -m pytest tests/test_public_api.py tests/cli/test_flags.py \
		tests/cli/test_verify.py tests/cli/test_zoo_commands.py \
		tests/export/lowering/native/test_build.py

bench: $(VENV)/.installed demo ## the figures of benchmarks/, side by side in one run
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/verify_vgg16.py demo/vgg16
	$(BIN)/python benchmarks/export.py --model vgg16 --model resnet50 --model mobilenet_v2
	$(BIN)/python benchmarks/mish_kernel.py

clean:
	rm -rf $(VENV) .venv-wheel .typing dist build demo *.egg-info
