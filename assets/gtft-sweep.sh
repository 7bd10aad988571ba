#!/bin/sh
# The order gtft-sweep: seconds of work; nothing is trained here, and nothing is waited for.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${GC_PACK_DIR:=$(dirname "$here")}"
. "$here/gtft-env.sh"
if ! find_gtft >/dev/null; then
  echo "gtft is not installed in this city: skipped. Next: gc gtft install" >&2
  exit 0
fi
run_gtft sweep
