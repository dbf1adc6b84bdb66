# make demo    create the environment, install, and ask the bundled model three questions
# make test    the test suite; creates the environment if it is missing
# make test-slow KILLS=3000 EXAMPLES=1000 STATES=2000 FLIPS=500 TRIALS=1000    kills, faults and power cuts; choose the numbers
# make test-browser QUESTIONS=500    the pages in a real Chromium; choose how many questions the memory test asks
# make test-replies REPLIES=20000 SEED=0    replies of a cloud, mutated from those of real servers
# make test-arm ALL=1    the tests on an emulated Raspberry Pi 3, 4 and 5 (needs qemu-user-static); with ALL, all tests on each of them
# make help    all targets
# The environment is .venv, with the versions in requirements/*.txt. PYTHON chooses the interpreter (3.11 or later).

PYTHON ?= python3
KILLS ?= 25
EXAMPLES ?= 30
STATES ?= 200
FLIPS ?= 60
TRIALS ?= 20
REPLIES ?= 20000
SEED ?= 0
QUESTIONS ?= 60
PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet
# How llama.cpp is compiled: requirements/README.md says why.
export CMAKE_ARGS ?= $(shell cat requirements/llama.cpp-flags.txt)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo test test-browser test-peers test-slow test-first-starts test-replies arm-environment test-arm lint pictures demo-model wheel wheelhouse acceptance lock clean

help:
	@echo 'make demo        ask the bundled model three questions'
	@echo 'make test        the test suite'
	@echo 'make test-browser  the pages in a real Chromium (choose QUESTIONS)'
	@echo 'make test-slow   kills, faults, damaged files, whole runs; takes minutes (choose KILLS, EXAMPLES, STATES, FLIPS, TRIALS)'
	@echo 'make test-first-starts TRIALS=1000   8 and 32 processes that open one new home at once, and kills and full disks of first starts'
	@echo 'make test-replies  20,000 strange replies of a cloud (choose REPLIES, SEED)'
	@echo 'make test-peers  compare with transformers, peft and llama.cpp (installs torch)'
	@echo 'make test-arm    the tests on emulated ARM processors (needs qemu-user-static and g++-aarch64-linux-gnu)'
	@echo 'make lint        ruff and mypy'
	@echo 'make pictures    make the pictures in docs/kiosk again (needs Chromium)'
	@echo 'make demo-model  train a demo model from scratch, into build/demo (hours on 2 cores; installs torch)'
	@echo 'make wheel       build the wheel into dist/'
	@echo 'make wheelhouse  build all wheels for machines like this one, into dist/wheelhouse, so that a fleet compiles once'
	@echo '                 ARCH=aarch64: for every 64-bit Raspberry Pi, compiled on a PC, into dist/wheelhouse-aarch64; x86_64: for any laptop'
	@echo 'make acceptance  fetch and convert issai/foggen, and compare it with the published figures (needs a network)'
	@echo 'make lock        choose the newest versions and write them to requirements/*.txt'
	@echo 'make clean       remove the environment and all build results'

demo: .venv/runtime
	@sh examples/demo.sh

test: .venv/dev
	.venv/bin/python -m pytest tests --ignore tests/peers --ignore tests/slow --ignore tests/browser --ignore tests/arm

test-browser: .venv/dev .venv/browser
	EDGE_AGENT_TEST_QUESTIONS=$(QUESTIONS) .venv/bin/python -m pytest tests/browser

test-slow: .venv/dev
	EDGE_AGENT_TEST_KILLS=$(KILLS) EDGE_AGENT_TEST_EXAMPLES=$(EXAMPLES) EDGE_AGENT_TEST_STATES=$(STATES) \
	EDGE_AGENT_TEST_FLIPS=$(FLIPS) EDGE_AGENT_TEST_TRIALS=$(TRIALS) .venv/bin/python -m pytest tests/slow

test-first-starts: .venv/dev
	EDGE_AGENT_TEST_TRIALS=$(TRIALS) .venv/bin/python -m pytest tests/slow/test_faults.py

test-replies: .venv/dev
	EDGE_AGENT_TEST_REPLIES=$(REPLIES) EDGE_AGENT_TEST_SEED=$(SEED) .venv/bin/python -m pytest tests/slow/test_reply_fuzz.py

test-peers: .venv/dev .venv/peers .venv/llama.cpp
	.venv/bin/python -m pytest tests/peers

arm-environment: .venv/dev
	@sh tests/arm/needs.sh
	@test -e dist/wheelhouse-aarch64/INSTALL.txt || $(MAKE) --no-print-directory wheelhouse ARCH=aarch64
	@.venv/bin/python -m hatchling build -t wheel -d dist/wheelhouse-aarch64 >/dev/null
	@sh tests/arm/environment.sh $(CURDIR)/.venv/bin/python dist/wheelhouse-aarch64 build/arm bookworm 3.11 tests
	@sh tests/arm/environment.sh $(CURDIR)/.venv/bin/python dist/wheelhouse-aarch64 build/arm/trixie trixie 3.13

test-arm: arm-environment
	.venv/bin/python -m tests.arm.run build/arm $(if $(ALL),--all)
	.venv/bin/python -m benchmarks.arm_instructions build/arm --check benchmarks/results/arm-instructions.json

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

pictures: .venv/dev .venv/browser
	.venv/bin/python -m tests.browser.pictures

demo-model: .venv/peers
	.venv/bin/python -m models.recipe --config demo --out build/demo

wheel: .venv/runtime
	.venv/bin/python -m hatchling build -t wheel -d dist

wheelhouse: .venv/runtime
ifeq ($(ARCH),)
	@sh requirements/wheelhouse.sh $(CURDIR)/.venv/bin/python dist/wheelhouse
else
	@sh requirements/portable.sh $(ARCH) $(CURDIR)/.venv/bin/python dist/wheelhouse-$(ARCH)
endif

acceptance: .venv/runtime
	.venv/bin/python -m benchmarks.acceptance --out build/acceptance

lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check --quiet install uv
	sh requirements/lock.sh .venv-lock/bin/uv
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build/arm build/portable-* dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/runtime: requirements/build.txt requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("edge-agent needs Python 3.11 or later; choose one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo 'Creating .venv (only once; about 5 minutes on 2 cores)'
	@echo '  1/3 build tools'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements/build.txt
	@echo '  2/3 llama.cpp, compiled for this processor, and the other libraries'
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PIP) install --require-hashes --no-build-isolation -r requirements/runtime.txt
	@echo '  3/3 edge-agent'
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

.venv/browser: .venv/dev requirements/browser.txt
	@$(PIP) install --require-hashes -r requirements/browser.txt
	@touch $@

.venv/peers: .venv/runtime requirements/peers.txt requirements/torch.txt
	@echo 'Installing torch, transformers and peft.'
	@$(PIP) install -r requirements/torch.txt
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PIP) install --require-hashes --no-deps --no-build-isolation -r requirements/peers.txt
	@touch $@

# llama.cpp's converter is not a package: take it from the pinned source of llama-cpp-python.
.venv/llama.cpp: requirements/runtime.txt
	@rm -rf $@ .venv/sdist
	@mkdir -p .venv/sdist $@
	@sed -n '/^llama-cpp-python==/,/# via/p' requirements/runtime.txt > .venv/sdist/requirement.txt
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PIP) download --require-hashes --no-deps --no-binary :all: --no-build-isolation \
		-r .venv/sdist/requirement.txt -d .venv/sdist
	@cd .venv/sdist && name=$$(ls *.tar.gz) && tar -xzf $$name -C ../llama.cpp --strip-components 3 $$(for part in \
		conversion gguf-py convert_hf_to_gguf.py convert_lora_to_gguf.py; do echo $${name%.tar.gz}/vendor/llama.cpp/$$part; done)
	@rm -rf .venv/sdist
