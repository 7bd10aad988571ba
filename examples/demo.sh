#!/bin/sh
# The main job on the sample town: run the quickstart to the review gate, approve as its witness, write the card.
# usage: demo.sh WORKSPACE     (each demo starts from an empty workspace)
set -eu
workspace=$1
rm -rf "$workspace"
export GTFT_WORKSPACE="$workspace"

say() { printf '\n== %s\n' "$1"; }

begin=$(date +%s)
say 'gtft run mol-gtft-quickstart   (harvest, train, eval)'
gtft run mol-gtft-quickstart --as gizmo/polecats/demo

run=$(gtft runs list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')
bead=$(gtft review list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["bead"])')

say "gtft review show $bead   (what the witness sees)"
gtft review show "$bead"

say "gtft review approve $bead --as gizmo/witness   (this demo plays the witness too, under another name)"
gtft review approve "$bead" --as gizmo/witness --note 'approved by the demo script, not by a person'

say "gtft run $run   (the card)"
gtft run "$run" --as gizmo/polecats/demo
seconds=$(($(date +%s) - begin))

say "done in $seconds s"
gtft status
card=$(gtft model list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["card_path"])')
cat <<EOF

Everything is in $workspace
  the card         $card/README.md
  the figures      gtft eval show
  the corpus       gtft corpus health
  its examples     gtft corpus preview
  both answers     gtft eval items --flipped
  the history      gtft runs show $run
Type next:
  export GTFT_WORKSPACE="$workspace" PATH="$PWD/.venv/bin:\$PATH"
  gtft model list
  gtft recipe explain mol-gtft-finetune     then the same on your own town's history: docs/tutorial.md
EOF
