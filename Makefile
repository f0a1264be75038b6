# The repository's commands. Each installs what it needs into .venv first; what is there already costs nothing.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := @$(PYTHON) scripts/bootstrap.py

.PHONY: help quickstart ui screenshots test test-slow lint docs bench-frameworks clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1: /p' Makefile

quickstart:  ## the main job: install, then probe, plan, produce, validate and report on the embedded model
	$(INSTALL) llamacpp
	$(BIN)/advisor quickstart

test:  ## the fast tests; needs no framework and compiles nothing
	$(INSTALL) test
	$(BIN)/python -m pytest

ui:  ## the web page
	$(INSTALL) llamacpp ui
	$(BIN)/advisor ui

screenshots:  ## take the pictures of the documentation anew, with the real page and a real run
	$(INSTALL) test llamacpp ui browser
	ADVISOR_SCREENSHOTS=docs/images $(BIN)/python -m pytest -m slow tests/ui/test_browser.py -k newcomer

test-slow:  ## real conversions, kills, fuzzing with llama.cpp, and the page in a browser where there is Chromium
	$(INSTALL) test llamacpp ui mcp browser learn
	$(BIN)/python -m pytest -m slow

lint:  ## ruff and mypy
	$(INSTALL) test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs:  ## write docs/cli.md anew from the program
	$(INSTALL) test
	$(BIN)/python scripts/cli_reference.py

bench-frameworks:  ## the embedded model in all four frameworks, side by side, into docs/frameworks.md: an hour on two cores
	$(INSTALL) llamacpp
	$(BIN)/advisor toolchain install openvino
	$(BIN)/advisor toolchain install olive
	$(BIN)/advisor toolchain install mlx
	$(BIN)/python benchmarks/frameworks.py

clean:  ## remove everything the targets above made here; your runs, your history and pip's cache stay
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
