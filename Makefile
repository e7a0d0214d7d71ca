# Each target sets up what it needs; nothing has to be installed by hand but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The library also runs on the newest paddlepaddle-gpu of PyPI, 2.6.2; this is its CPU twin.
VENV2 := .venv-paddle2

# And this is paddlepaddle-gpu itself, which has no build for Python 3.13.
VENV_GPU := .venv-gpu

.PHONY: help venv demo board docs test test-paddle2 gpu-check lint clean

help:
	@echo "make venv          set up $(VENV) with the project and what its tests need"
	@echo "make demo          train, fine-tune, explain, export (to C and a page, too), on images that it draws"
	@echo "make board         open VisualDL's board of the runs in output/ at http://127.0.0.1:8040"
	@echo "make test          run the tests"
	@echo "make test-paddle2  run the tests on PaddlePaddle 2.6.2, numpy 1 and protobuf 3.20"
	@echo "make gpu-check     compare everything on the GPU of this machine with its CPU; writes gpu-check.md"
	@echo "make lint          check format, style, types, the order of imports and the documentation"
	@echo "make docs          read the documentation at http://127.0.0.1:8000"
	@echo "make clean         remove the environments, caches and the demo's output"

venv: $(VENV)/.up_to_date

$(VENV)/.up_to_date: pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[cpu,dev]'
	touch $@

$(VENV2)/.up_to_date: pyproject.toml constraints-paddle2.txt
	rm -rf $(VENV2)
	$(PYTHON) -m venv $(VENV2)
	$(VENV2)/bin/pip install --quiet --constraint constraints-paddle2.txt --editable '.[cpu,dev]'
	touch $@

demo: venv
	$(BIN)/squeezenet demo

board: venv
	$(BIN)/visualdl --logdir output --host 127.0.0.1 --port 8040 --disable-telemetry

docs: venv
	$(BIN)/mkdocs serve

# Two at a time: most tests are bound by one core, and many wait for processes to start.
PYTEST := -m pytest -n 2 --dist loadfile

test: venv
	$(BIN)/python $(PYTEST)

test-paddle2: $(VENV2)/.up_to_date
	$(VENV2)/bin/python $(PYTEST)

$(VENV_GPU)/.up_to_date: pyproject.toml
	rm -rf $(VENV_GPU)
	$(PYTHON) -m venv $(VENV_GPU)
	$(VENV_GPU)/bin/pip install --quiet --editable '.[gpu,onnxruntime]'
	touch $@

gpu-check: $(VENV_GPU)/.up_to_date
	$(VENV_GPU)/bin/python -m benchmarks.gpu --output gpu-check.md

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(VENV2) $(VENV_GPU) gpu-check.md output/demo *.egg-info build dist site \
		.pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
