#!/bin/sh
# gc gtft rollback: gtft rollback, with this city's workspace.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
run_gtft rollback "$@"
