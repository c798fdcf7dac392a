#!/bin/sh
# Lint, format and types; sh scripts/check.sh --fix mends what can be mended.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh test
if [ "${1:-}" = --fix ]; then
  .venv/bin/ruff check --quiet --fix
  .venv/bin/ruff format --quiet
fi
.venv/bin/ruff check --quiet
.venv/bin/ruff format --quiet --check
.venv/bin/mypy
.venv/bin/lint-imports --no-cache --no-logo
