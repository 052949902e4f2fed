# make demo   the whole pipeline on the embedded sample: a submission and a report in minutes
# make test   every test that needs neither a GPU nor a network
# make test-kaggle  the tests on the versions of Kaggle's image, in .venv-kaggle: TESTS="some files"
# make check  ruff, mypy, and deptry: what is imported is declared
# make size   lines and statements by package, beside the budget
# make kill-test  20 runs killed at random points, resumed, compared byte for byte
# make bench  every stage compared with the usual way, in minutes: PHOTOS="folders of originals"
# make bench-gpu  the same on a GPU; OUT=1 with either writes docs/results, then: python scripts/docs.py
# make serve  a web page and REST for a trained run: RUN=demo/resnet10t
# make notebooks  write notebooks/*.ipynb from their templates
# make lock   pin requirements.txt anew
# Each sets up .venv itself, from requirements.lock.

SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
export NO_ALBUMENTATIONS_UPDATE := 1
# Threads that wait for a core taken by another program sleep instead of burning the one they have.
export OMP_WAIT_POLICY := PASSIVE
# Behind a company's proxy its certificate is known to the system, not to uv.
export UV_SYSTEM_CERTS := 1

.PHONY: notebooks demo test test-kaggle check size bench bench-gpu kill-test serve lock clean

# A stamp made after the installation, so that an interrupted one is done again.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	    sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip install --quiet --python $(PY) -r requirements.lock
	@touch $@

demo: .venv/installed
	@PATH="$(CURDIR)/.venv/bin:$$PATH" scripts/demo.sh

test: .venv/installed
	$(PY) -m pytest

# Kaggle has Python 3.12: that one if it is here, else the one at hand.
KAGGLE_PYTHON ?= $(firstword $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null) \
    $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python3.12) $(PYTHON))
.venv-kaggle/installed: requirements-kaggle.txt | .venv/installed
	$(KAGGLE_PYTHON) -m venv --clear .venv-kaggle
	$(PY) -m uv pip install --quiet --python .venv-kaggle/bin/python -r requirements-kaggle.txt
	@touch $@

test-kaggle: .venv-kaggle/installed
	.venv-kaggle/bin/python -m pytest $(TESTS)

check: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m deptry src scripts

size: .venv/installed
	$(PY) benchmarks/size.py

kill-test: .venv/installed
	$(PY) benchmarks/survival.py $(call out,survival)

PHOTOS ?= $(wildcard input/isic2020/jpeg/train input/isic2019/ISIC_2019_Training_Input)
# $(call out,cache) is --out docs/results/cache.json where OUT is given.
out = $(if $(OUT),--out docs/results/$(1).json)
bench: .venv/installed
	@$(if $(strip $(PHOTOS)),,echo "no originals below input/: drawn images; PHOTOS=... for real ones";)
	$(if $(strip $(PHOTOS)),$(PY) benchmarks/cache.py --images $(PHOTOS) $(call out,cache))
	$(PY) benchmarks/step.py $(call out,step)
	OMP_NUM_THREADS=1 $(PY) benchmarks/loader.py $(if $(strip $(PHOTOS)),--images $(PHOTOS)) $(call out,loader)
	OMP_NUM_THREADS=1 $(PY) benchmarks/blending.py $(call out,blending)

bench-gpu: .venv/installed
	$(PY) benchmarks/gpu.py $(call out,gpu)

RUN ?= demo/resnet10t
serve: .venv/installed
	$(PY) scripts/serve.py --run $(RUN)

notebooks: .venv/installed
	$(PY) scripts/kaggle_push.py notebooks

lock: .venv/installed
	$(PY) -m uv pip compile --universal --python-version 3.11 --extra dev --no-header \
	    --quiet --upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf input/sample input/prepared/demo oof/demo submissions/demo
