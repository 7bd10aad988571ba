#!/bin/sh
# gc gtft review: gtft review, with this city's workspace.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
run_gtft review "$@"
