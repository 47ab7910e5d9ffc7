#!/usr/bin/env bash
# Switches on each planted bug of tests/planted.txt in turn: the test named beside it must pass without the bug and fail
# with it. Prints a line a bug; fails if one is not caught.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --locked --features planted-bugs --test it --no-run --quiet
binary=$(cargo test --locked --features planted-bugs --test it --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\/it-[0-9a-f]*\)".*/\1/p' | tail -1)
export RUST_BACKTRACE=0
names=$(mktemp) && trap 'rm -f "$names"' EXIT
grep -v '^#' tests/planted.txt >"$names"
missed=0
while read -r bug test; do
  if ! out=$(NIGHTSHIFT_PLANT= "$binary" --exact "$test" 2>&1) || ! grep -q '^test result: ok. 1 passed' <<<"$out"; then
    echo "BROKEN  $bug: $test does not pass without the bug"
    missed=1
  elif NIGHTSHIFT_PLANT=$bug timeout 120 "$binary" --exact "$test" >/dev/null 2>&1; then
    echo "MISSED  $bug: $test passes although the bug is there"
    missed=1
  else
    echo "caught  $bug by $test"
  fi
done <"$names"
exit "$missed"
