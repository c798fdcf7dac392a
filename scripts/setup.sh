#!/bin/sh
# Make or refresh .venv with exactly the locked versions: sh scripts/setup.sh [test]
# Uses uv where it is installed, venv and pip otherwise. PYTHON names another interpreter than python3.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-}
lock=requirements${kind:+-$kind}.lock
[ -f "$lock" ] || { echo "setup: there is no $lock; the only extra is 'test'" >&2; exit 2; }
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "setup: $python was not found; Python 3.10 or later is needed" >&2; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  { echo "setup: $("$python" --version) is too old; Python 3.10 or later is needed (PYTHON=... names another)" >&2; exit 2; }

stamp=.venv/.installed${kind:+-$kind}
wanted=$(cksum < "$lock")
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
echo "setup: installing $lock into .venv"
if command -v uv >/dev/null; then
  [ -x .venv/bin/python ] || uv venv --quiet --allow-existing --python "$python" .venv
  # as pip does: thousands of modules compiled once, not at each start where Python may not write beside them
  uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r "$lock"
else
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
fi
# the package itself is used from src, in notebooks and shells too
.venv/bin/python -c 'import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "afterfit.pth").write_text(sys.argv[1] + "\n", "utf-8")' "$PWD/src"
echo "$wanted" > "$stamp"
