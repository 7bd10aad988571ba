#!/bin/sh
# The city's gtft. Exit 0 ok, 1 not installed, 2 damaged; the first line is the message.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
if ! gtft=$(find_gtft); then
  echo "gtft is not installed in this city"
  echo "next: gc gtft install"
  exit 1
fi
if [ "$gtft" = "$venv/bin/gtft" ] && [ ! -f "$state/installed" ]; then
  echo "the install of gtft was cut off"
  echo "next: gc gtft install"
  exit 2
fi
if ! said=$("$gtft" --version 2>&1); then
  echo "gtft does not start"
  printf '%s\n' "$said" "next: gc gtft install"
  exit 2
fi
printf '%s\n' "$said" "$gtft"
