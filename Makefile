# Every target does all the set-up it needs: Python 3.11 or newer (with venv), make and git suffice.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/installed
DRIVER := .venv/browser-installed
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install chat serve test test-slow test-browser lint speedrun two-hosts four-hosts

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## set up everything that chat and the tests need in .venv

# Redone when what is to be installed has changed. The stamp is written last: an interrupted
# installation is taken up again by the next make.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: '$(PYTHON)' is not Python 3.11 or newer; call make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv: minutes, most of them for downloading torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,serve,train]'
	@touch $@

# Not part of the above: it is 165 MB, and nothing else needs it. Chromium itself is the system's.
$(DRIVER): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[browser]'
	@touch $@

chat: $(STAMP)  ## talk to the default model; make chat ARGS='--prompt "draw a red circle"'
	@$(BIN)/python -m unimodal chat $(ARGS)

serve: $(STAMP)  ## serve the default model on this machine; make serve ARGS='--port 8080'
	@$(BIN)/python -m unimodal serve $(ARGS)

test: $(STAMP)  ## run the tests (minutes), JOBS=2 files at once; make test ARGS=tests/test_config.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## run the longer tests only
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

test-browser: $(DRIVER)  ## try the web page in Chromium, which must be there
	$(BIN)/python -m pytest -m browser $(ARGS)

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy -p unimodal

speedrun: $(STAMP)  ## from an empty disk to a small model that chats, on two cores
	$(BIN)/python -m unimodal.train.speedrun $(ARGS)

two-hosts: $(STAMP)  ## a run over two hosts: network namespaces of this machine; needs root
	@$(BIN)/python tests/hosts.py 2

four-hosts: $(STAMP)  ## the same over four hosts
	@$(BIN)/python tests/hosts.py 4
