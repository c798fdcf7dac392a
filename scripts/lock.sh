#!/bin/sh
# Resolve pyproject.toml into requirements.lock and requirements-test.lock (hashed, for every supported Python),
# and write the same versions into conda.yaml. Needs uv. Pins that still fit stay; sh scripts/lock.sh --upgrade takes
# the newest versions that work together. Options go to uv.
set -eu
cd "$(dirname "$0")/.."
lock() { uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links "$@"; }
lock pyproject.toml --output-file requirements.lock "$@"
lock pyproject.toml --extra test --constraint requirements.lock --output-file requirements-test.lock "$@"
uv run --quiet --no-project --with packaging python scripts/conda_pins.py
