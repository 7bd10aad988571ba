# shellcheck shell=sh
# Read by every script of the pack: where the city, its gtft and its state are. Holds no secret and asks for none.
city=${GC_CITY_PATH:?is set by gc: run this as a command, an order or a check of the pack}
# shellcheck disable=SC2034 # commands/install copies from it
pack=${GC_PACK_DIR:-${PACK_DIR:?is set by gc}}
# gc names an order's state after the folder of the pack and a command's after its name: one place for both.
state=$city/.gc/runtime/packs/gtft
venv=$state/venv
GTFT_WORKSPACE=${GTFT_WORKSPACE:-$state/workspace}
export GTFT_WORKSPACE

# find_gtft: prints the gtft of this city, else the one on PATH; fails when there is neither.
find_gtft() {
  if [ -x "$venv/bin/gtft" ]; then
    printf '%s\n' "$venv/bin/gtft"
  else
    command -v gtft
  fi
}

# run_gtft WORDS...: in the city's folder, with the city's workspace.
run_gtft() {
  if ! gtft=$(find_gtft); then
    echo "gtft is not installed in this city. Next: gc gtft install" >&2
    exit 3
  fi
  cd "$city" || exit 3
  exec "$gtft" "$@"
}

# find_python: prints the first Python that gtft can live in (3.11 or later, with venv).
find_python() {
  for name in "${GTFT_PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$name" ] || continue
    if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return 0
    fi
  done
  return 1
}
