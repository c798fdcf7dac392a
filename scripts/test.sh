#!/bin/sh
# Set up with the test extra, then lint, types and tests. Options go to pytest: sh scripts/test.sh -m 'not slow'
set -eu
cd "$(dirname "$0")/.."
sh scripts/check.sh
PATH="$PWD/.venv/bin:$PATH"
# one thread a worker: the workers share the cores
export PATH OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
