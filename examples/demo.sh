#!/bin/sh
# The main job on the sample town: run the quickstart to the review gate, approve as its witness, write the card.
# usage: demo.sh WORKSPACE     (each demo starts from an empty workspace)
set -eu
workspace=$1
rm -rf "$workspace"
export GTFT_WORKSPACE="$workspace"

say() { printf '\n== %s\n' "$1"; }
first() { python3 -c 'import json, sys; print(json.load(sys.stdin)["data"][0][sys.argv[1]])' "$1"; }

begin=$(date +%s)
say 'gtft run mol-gtft-quickstart   (harvest, train, eval)'
# Besides gtft's own items: some about the rules of this town, which nobody else could know.
gtft run mol-gtft-quickstart --as gizmo/polecats/demo \
  --set 'eval.files=["examples/town/evals/house-rules.jsonl"]'

run=$(gtft runs list --json | first id)
bead=$(gtft review list --json | first bead)

say "gtft review show $bead   (what the witness sees)"
gtft review show "$bead"

say "gtft review approve $bead --as gizmo/witness   (the demo plays the witness too, under another name)"
gtft review approve "$bead" --as gizmo/witness \
  --note 'approved by the demo script whatever the verdict, so that a card is written'

say "gtft run $run   (the card)"
gtft run "$run" --as gizmo/polecats/demo
seconds=$(($(date +%s) - begin))

say "done: the run took $seconds s"
gtft model show witness
echo
gtft status
cat <<EOF

Everything is in $workspace
  the card      $(ls -d "$workspace"/artifacts/card-*)/README.md
Type next:
  export GTFT_WORKSPACE="$workspace" PATH="$PWD/.venv/bin:\$PATH"
  gtft corpus health              what was read, dropped, redacted
  gtft corpus preview             the examples, and what of them is trained
  gtft eval items --flipped       where base and tuned differ, both answers
  gtft runs show $run
  gtft model export witness --format merged --out witness-merged     and the proof that it answers alike
  gtft model serve witness        for OpenAI's and Anthropic's clients, on this machine
  gtft deploy witness --role witness     its answers beside the agent's; gtft rollback takes it back
  gtft recipe explain mol-gtft-finetune --var transcripts=~/.claude/projects     the same on your own history
EOF
