#!/bin/sh
# gtft-sweep: what the dog runs. Seconds of work; nothing is trained here.
set -eu

# This file is <town>/plugins/gtft-sweep/run.sh.
town=$(cd "$(dirname "$0")/../.." && pwd)
cd "$town"

# record RESULT TEXT: the receipt that gt's cooldown gate and "gt plugin history" read.
record() {
  receipt=$(BEADS_DIR="$town/.beads" bd create --ephemeral --silent \
    --title="Plugin run: gtft-sweep" --description="$2" \
    -l "type:plugin-run,plugin:gtft-sweep,result:$1")
  BEADS_DIR="$town/.beads" bd close "$receipt" --reason="plugin run recorded" >/dev/null
}

if ! command -v gtft >/dev/null 2>&1; then
  record skipped "gtft is not on PATH"
  exit 0
fi

if said=$(gtft sweep 2>&1); then
  record success "$said"
  printf '%s\n' "$said"
else
  code=$?
  record failure "gtft sweep exited $code: $said"
  printf '%s\n' "$said" >&2
  exit "$code"
fi
