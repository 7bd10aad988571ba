#!/bin/sh
# The order gtft-sweep: seconds of work; nothing is trained here, and nothing is waited for.
set -eu
cd "${GC_CITY_PATH:-.}"
if ! command -v gtft >/dev/null 2>&1; then
  echo "gtft is not on PATH: skipped" >&2
  exit 0
fi
exec gtft sweep
