#!/bin/sh
# Write what a container is built from, and what Kubernetes runs it with, into a new folder:
#   sh scripts/container.sh OUT --config flights-late --tracking http://mlflow:5000 --log s3://bucket/log
# The version that holds the alias is downloaded into OUT, or with --fetch at each start; --help lists the options.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
PATH="$root/.venv/bin:$PATH"
export PATH
command -v python >/dev/null && python -c 'import sys
from importlib.util import find_spec
sys.exit(any(find_spec(name) is None for name in ("mlflow", "yaml")))' ||
  { echo "container: the project's packages are not installed; sh scripts/setup.sh installs them" >&2; exit 2; }
PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}" exec python "$root/scripts/container/write.py" "$@"
