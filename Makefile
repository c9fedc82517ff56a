.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
NB ?=

.PHONY: help setup lab run test check lessons tests lint sync text notebooks export report serve benchmark clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[serve,report,dev]'
	touch $@

setup: $(STAMP) ## make .venv with everything pinned in constraints.txt

lab: setup ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

run: setup ## simulate, train, report and serve (Ctrl-C stops the service)
	$(BIN)/smartgrid run

test: setup check ## set up and pass every check: what CI runs

check: lint sync ## lint, sync of notebooks and package, every notebook, pytest
	$(MAKE) --no-print-directory -j3 lessons tests

lessons: setup
	$(ONE_THREAD) $(BIN)/nbdev-test --n-workers 1

tests: tests-a-c tests-d-h tests-i-p tests-q-s tests-t tests-u-z

tests-%: setup
	$(ONE_THREAD) $(BIN)/python -m pytest tests/test_[$*]*.py

lint: setup
	$(BIN)/ruff check nbs smartgrid_ai tests benchmarks setup.py
	$(BIN)/ruff format --check nbs tests benchmarks setup.py

sync: setup
	$(BIN)/python tests/sync.py

text: setup ## notebook as text to edit: make text NB=nbs/21_features.ipynb
	@test -n "$(NB)" || { echo 'name a notebook: make text NB=nbs/21_features.ipynb'; exit 2; }
	mkdir -p .nbs
	$(BIN)/jupytext --to py:percent -o .nbs/$(basename $(notdir $(NB))).py $(NB)

notebooks: setup ## bring every edited text in .nbs/ back into its notebook
	for text in .nbs/*.py; do \
		name=$$(basename $$text .py); target=nbs/$$name.ipynb; \
		if [ -f nbs/reports/$$name.ipynb ]; then target=nbs/reports/$$name.ipynb; fi; \
		$(BIN)/jupytext --update --to ipynb -o $$target $$text; \
	done
	$(BIN)/ruff check --fix -q nbs; $(BIN)/ruff format -q nbs
	$(BIN)/nbdev-clean

export: setup ## write the package from the notebooks and run every notebook, keeping its pictures
	$(BIN)/nbdev-export
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --save --n-workers 2
	$(BIN)/nbdev-clean

report: setup ## train on the simulator's small preset and write both reports
	$(BIN)/smartgrid run --no-serve

serve: setup ## serve the active models on http://127.0.0.1:8000
	$(BIN)/smartgrid serve

benchmark: setup ## every benchmark, one after the other; the forecasts' table goes into README.md (hours)
	for script in $(filter-out benchmarks/forecasts.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done
	$(BIN)/python benchmarks/forecasts.py --readme

clean: ## remove what runs produced (models and reports stay)
	rm -rf .nbs build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
