#!/bin/sh
# gc gtft eval: gtft eval, with this city's workspace.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
run_gtft eval "$@"
