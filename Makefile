# Kiosk Fleet. Two commands are all a newcomer needs: `make demo` and `make test`. The work is done by the small programs in scripts/;
# this file only says in which order. ARGS= is handed to the program behind a target, e.g. make demo ARGS="--terminals 50".

SHELL  := /bin/sh
ARGS   ?=
PYTHON ?= $(shell sh scripts/find-python)
RUN    := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test check bench vm soak release tuf-conformance environment assets lock clean

help:  ## What can be asked of this Makefile
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

demo: environment assets  ## Start a server and 400 simulated terminals on this machine, and say where to look
	@$(PYTHON) -m scripts.system_packages mosquitto
	@$(RUN) -m tests.demo $(ARGS)

test: environment assets  ## Check everything, then run all tests (27 minutes on two quiet cores)
	@$(PYTHON) -m scripts.system_packages mosquitto updates browser pcsc power printing stacks
	@$(RUN) -m scripts.checks all $(ARGS)

check: environment  ## The quick door before a commit: format, lint, types, import contracts, unit tests
	@$(RUN) -m scripts.checks quick $(ARGS)

bench: environment assets  ## Measure, and print each figure beside its budget
	@$(PYTHON) -m scripts.system_packages mosquitto bench
	@$(RUN) -m tests.bench $(ARGS)

vm: environment  ## The built agent on a Debian kernel in a virtual machine, as its systemd unit, with USB devices (about four minutes)
	@$(PYTHON) -m scripts.system_packages vm
	@$(RUN) -m scripts.vm $(ARGS)

soak: environment assets  ## The long matrices: hours of kills, cuts, floods (KF_SOAK=0.1 shortens them)
	@$(PYTHON) -m scripts.system_packages mosquitto updates browser stacks
	@KF_SOAK="$${KF_SOAK:-1}" $(RUN) -m pytest -m soak -n 0 --timeout 0 --durations 20 $(ARGS)

release: environment  ## Build a release of the agent with its interpreter and libraries (ARGS="--version 1.2.0")
	@$(RUN) -m scripts.release $(ARGS)

tuf-conformance: environment  ## Run the public conformance suite for TUF clients against ours (fetched, never part of this repository)
	@$(RUN) -m scripts.tuf_conformance $(ARGS)

environment:  ## Make .venv from the lock, when the lock has changed
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: sudo apt-get install python3" >&2; exit 1; }
	@$(PYTHON) -m scripts.environment

assets: environment  ## Fetch the console's front-end packages, when their lock has changed
	@$(RUN) -m scripts.assets

lock: environment  ## Renew locks/ and package-lock.json from what is asked for (ARGS=--upgrade: take newer versions)
	@$(RUN) -m scripts.lock $(ARGS)

clean:  ## Remove what the targets above made
	@rm -rf .venv node_modules fleet_server/console/static/vendor .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache build *.egg-info
