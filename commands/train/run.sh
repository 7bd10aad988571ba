#!/bin/sh
# gc gtft train: gtft run, which goes on without this terminal: training outlives every timeout of gc.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
if [ "$#" -eq 0 ]; then
  echo "Usage: gc gtft train RECIPE [--var NAME=VALUE] [--set KEY=VALUE]" >&2
  echo "A whole trial on the made-up town: gc gtft train mol-gtft-quickstart" >&2
  exit 2
fi
run_gtft run --detach "$@"
