#!/bin/sh
# A Python that gtft can live in. Exit 0 ok, 2 error; the first line is the message.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
if ! python=$(find_python); then
  echo "no Python 3.11 or later with its venv module"
  echo "gtft is a Python program; install one, or name it: export GTFT_PYTHON=/path/to/python3"
  exit 2
fi
"$python" -c 'import platform; print("Python " + platform.python_version())'
echo "$python"
