#!/bin/sh
# The Python package as its users have it: the wheel in a fresh environment, its tests, and the demo.
# Usage: run.sh WHEEL [PYTHON]; PYTHON has torch, transformers, h5py, pandas, pytest already, otherwise pip fetches them.
set -eu
wheel=$(realpath "$1")
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${2:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install --quiet torch 'transformers>=4.46' h5py pandas pillow pytest mypy ruff cffi numpy
fi
"$python" -m pip install --quiet --no-deps --target "$work/site" "$wheel"
export PYTHONPATH="$work/site" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
cd "$work"
"$python" -m pytest -q -p no:cacheprovider "$source/tests/python"
"$python" -m mypy --strict --config-file "$source/pyproject.toml" "$source/python/vlens"
"$python" -m ruff check --no-cache --config "$source/pyproject.toml" "$source/python" "$source/tests/python"
"$python" -m vlens demo --out demo >demo.log 2>&1 || { tail -20 demo.log; exit 1; }
test -s demo/view.html && test -s demo/report.html
echo "python: all right"
