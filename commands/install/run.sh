#!/bin/sh
# gc gtft install [core|train|serve]: a virtual environment below .gc/runtime/packs/gtft and nothing anywhere else.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
case ${1:-train} in
  core) wanted= ;;
  train | serve) wanted="[${1:-train}]" ;;
  *)
    echo "Usage: gc gtft install [core|train|serve]" >&2
    exit 2
    ;;
esac
if ! python=$(find_python); then
  echo "gtft needs Python 3.11 or later with its venv module. Next: install it, or set GTFT_PYTHON" >&2
  exit 3
fi
mkdir -p "$state"
# Gone while the install is at work: a half-made environment is not taken for a whole one.
rm -f "$state/installed"
# pip leaves its traces beside what it builds; the pack's folder is not ours to write to.
source=$state/source
rm -rf "$source"
mkdir "$source"
trap 'rm -rf "$source"' EXIT
for part in gtft formulas hooks plugins pyproject.toml README.md LICENSE; do
  cp -R "$pack/$part" "$source/$part"
done
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --disable-pip-version-check -c "$pack/constraints.txt" "$source$wanted"
"$venv/bin/gtft" --version >"$state/installed.tmp"
mv "$state/installed.tmp" "$state/installed"
echo "$(cat "$state/installed") is installed in $venv"
echo "Next: gc doctor, then: gc gtft train mol-gtft-quickstart"
