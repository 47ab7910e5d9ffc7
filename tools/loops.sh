#!/usr/bin/env bash
# The long loops of faults, one kind after another, with the counts of record; each count can be given, as LOOPS_KILLS=50.
# LOOPS_SEED repeats a run. Prints one table at the end; fails if a loop does.
set -euo pipefail
cd "$(dirname "$0")/.."
export LOOPS_KILLS=${LOOPS_KILLS:-1000} CLOCK_STEPS=${CLOCK_STEPS:-200} LOOPS_IO_ERRORS=${LOOPS_IO_ERRORS:-200}
export LOOPS_FULL_DISKS=${LOOPS_FULL_DISKS:-100} LOOPS_RESTORES=${LOOPS_RESTORES:-100} LOOPS_STOPS=${LOOPS_STOPS:-100}
LOOPS_TABLE=$(mktemp) && export LOOPS_TABLE
trap 'rm -f "$LOOPS_TABLE"' EXIT
failed=0
for kind in loops::kills in_a_loop_of_clock_steps loops::io_errors loops::full_disks loops::restores loops::stops; do
  # One at a time: a machine that is busy with another loop makes both slower.
  cargo test --locked --test it -- "$kind" --nocapture --test-threads=1 || failed=1
done
printf '\n%-14s %6s %12s %5s %8s %8s %9s %10s %9s %7s\n' kind rounds acknowledged lost effects doubled 'in doubt' \
  unfounded 's beyond' silent
cat "$LOOPS_TABLE"
exit "$failed"
