#!/bin/sh
# Room for an environment, a base and checkpoints. Exit 0 ok, 1 little, 2 too little; the first line is the message.
set -eu
. "${GC_PACK_DIR:?is set by gc}/assets/gtft-env.sh"
free=$(df -Pk "$city" | awk 'NR == 2 { print $4 }')
mib=$((free / 1024))
if [ "$mib" -lt 2048 ]; then
  echo "$mib MiB free: too little even for the environment (about 6 GiB)"
  code=2
elif [ "$mib" -lt 20480 ]; then
  echo "$mib MiB free: enough for a trial; a base of 1 GB and its checkpoints want 20 GiB"
  code=1
else
  echo "$((mib / 1024)) GiB free"
  code=0
fi
echo "next: gtft model prune --dry-run says what can go"
exit "$code"
