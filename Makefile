# make, or make help, lists the targets. Each sets up .venv itself, from requirements.lock.

SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
export NO_ALBUMENTATIONS_UPDATE := 1
# Threads that wait for a core taken by another program sleep instead of burning the one they have.
export OMP_WAIT_POLICY := PASSIVE
# Behind a company's proxy its certificate is known to the system, not to uv.
export UV_SYSTEM_CERTS := 1

.PHONY: help demo quick-train test test-gpu test-kaggle check size kill-test bench bench-gpu serve tensorboard \
    check-gpu dataset-info notebooks lock clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

INSTALL = $(PY) -m uv pip install --quiet --compile-bytecode --python $(PY)
# A stamp made after the installation, so that an interrupted one is done again.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	    sys.exit(0 if (3, 11) <= v < (3, 15) else f"Python 3.11 to 3.14 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
ifeq ($(TORCH),cpu)
	@grep -vE '^(nvidia|cuda|triton)' requirements.lock > .venv/cpu.lock
	$(INSTALL) --torch-backend cpu -r .venv/cpu.lock || { $(INSTALL) -r requirements.lock && \
	    echo "PyTorch's index of CPU wheels was not reached: its wheels with CUDA are installed."; }
else
	@echo "installing 6.4 GB, half of it CUDA; without CUDA: make demo TORCH=cpu"
	$(INSTALL) -r requirements.lock
endif
	@touch $@

demo: .venv/installed  ## the whole pipeline on a drawn sample: a submission and a report in minutes
	@PATH="$(CURDIR)/.venv/bin:$$PATH" scripts/demo.sh

quick-train: .venv/installed  ## one fold of a small network on the drawn sample, in half a minute
	@test -d input/prepared/demo || { $(PY) scripts/make_sample.py --out input/sample && \
	    $(PY) scripts/prepare.py --dataset demo --size 64; }
	$(PY) scripts/train.py --config demo/resnet10t --name demo/quick --fold 0

test: .venv/installed  ## every test that needs neither a GPU nor a network
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Kaggle has Python 3.12: that one if it is here, else the one at hand.
KAGGLE_PYTHON ?= $(firstword $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null) \
    $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python3.12) $(PYTHON))
.venv-kaggle/installed: requirements-kaggle.txt | .venv/installed
	$(KAGGLE_PYTHON) -m venv --clear .venv-kaggle
	$(PY) -m uv pip install --quiet --compile-bytecode --python .venv-kaggle/bin/python -r requirements-kaggle.txt
	@touch $@

test-gpu: .venv/installed  ## tests that need a GPU: fp16, bf16, killed, resumed, exported
	$(PY) -m pytest -m gpu

test-kaggle: .venv-kaggle/installed  ## the tests on the versions of Kaggle's image: TESTS="some files"
	OMP_NUM_THREADS=1 .venv-kaggle/bin/python -m pytest -n 2 --dist loadfile $(TESTS)

check: .venv/installed  ## ruff, mypy, and deptry: what is imported is declared
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m deptry src scripts

size: .venv/installed  ## lines and statements by package, beside the budget
	$(PY) benchmarks/size.py

kill-test: .venv/installed  ## 20 runs killed at random points, resumed, compared byte for byte
	$(PY) benchmarks/survival.py $(call out,survival)

PHOTOS ?= $(wildcard input/isic2020/jpeg/train input/isic2019/ISIC_2019_Training_Input)
# $(call out,cache) is --out docs/results/cache.json where OUT is given.
out = $(if $(OUT),--out docs/results/$(1).json)
bench: .venv/installed  ## every stage beside the usual way: PHOTOS="folders of originals"; OUT=1 writes docs/results
	@$(if $(strip $(PHOTOS)),,echo "no originals below input/: drawn images; PHOTOS=... for real ones";)
	$(if $(strip $(PHOTOS)),$(PY) benchmarks/cache.py --images $(PHOTOS) $(call out,cache))
	$(PY) benchmarks/step.py $(call out,step)
	OMP_NUM_THREADS=1 $(PY) benchmarks/loader.py $(if $(strip $(PHOTOS)),--images $(PHOTOS)) $(call out,loader)
	$(if $(strip $(PHOTOS)),$(PY) benchmarks/peers.py --images $(PHOTOS) $(call out,peers))
	OMP_NUM_THREADS=1 $(PY) benchmarks/blending.py $(call out,blending)
	$(PY) benchmarks/waiting.py $(call out,waiting)

bench-gpu: .venv/installed  ## the same on a GPU
	$(PY) benchmarks/gpu.py $(call out,gpu)

serve: .venv/installed  ## a web page and a REST API for the model in models/, or RUN=effnet_b1
	$(PY) scripts/serve.py $(if $(RUN),--run $(RUN))

LOGS ?= oof
tensorboard: .venv/installed  ## curves of runs trained with train.tracker=tensorboard
	.venv/bin/tensorboard --logdir $(LOGS)

check-gpu: .venv/installed  ## what torch sees
	@$(PY) -c 'import torch; n = torch.cuda.device_count(); print(f"torch {torch.__version__}, {n} GPUs", \
	    *(torch.cuda.get_device_name(i) for i in range(n)), sep="\n  ")'

DATASET ?= demo
dataset-info: .venv/installed  ## the audit of a prepared data set: DATASET=isic
	$(PY) scripts/audit.py --dataset $(DATASET)

notebooks: .venv/installed  ## write notebooks/*.ipynb from their templates
	$(PY) scripts/kaggle_push.py notebooks

lock: .venv/installed  ## pin requirements.lock anew
	$(PY) -m uv pip compile --universal --python-version 3.11 --extra dev --no-header \
	    --quiet --upgrade pyproject.toml -o requirements.lock

clean:  ## delete what make demo wrote
	rm -rf input/sample input/prepared/demo oof/demo submissions/demo
