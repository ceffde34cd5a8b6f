# make quickstart   train with 3 Byzantine workers of 10, without and with a robust rule, and draw it
# make test         all tests but the slow ones and those over ssh
# make test-cluster jobs over ssh, on sshds of its own; needs openssh-server, and root and iproute2 for links that are cut

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install quickstart test test-slow test-cluster clean

install: .venv/installed

# torch goes first and alone, pinned: anything else could pull in another build of it.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "kuiper needs Python 3.11 or newer; say which: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "installing PyTorch and what else is needed into .venv (once; some minutes)"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,trackers]'
	@touch $@

quickstart: install
	$(BIN)/python manager.py submit configs/quickstart.yml --follow -o job_name=quickstart-average -o aggregator=average
	$(BIN)/python manager.py submit configs/quickstart.yml --follow
	$(BIN)/python manager.py plot quickstart-average quickstart -o logs/quickstart.png

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

test-cluster: install
	$(BIN)/python -m pytest -m cluster tests/cluster -rs --durations=10

clean:
	rm -rf .venv build *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
