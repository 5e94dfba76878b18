#!/usr/bin/env bash
# What refusals cost, and whether their time tells what was wrong: the tables of tests/it/hostile over
# real connections, on the release build.
#   TIMES=200 TOP=25 load-tests/refusals.sh
# First: CPU microseconds of the gateway a request (a connection each) and how many times a request
# without a credential that is; at most 10 is the aim, except where a password is verified. Then:
# wall time of two kinds of refusal in turns, and Welch's t of the difference (beyond 4.5: they differ).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp)
trap 'rm -f "$out"' EXIT
TOLLGATE_MEASURE=${TIMES:-200} cargo test --quiet --release --test it hostile:: -- \
    --test-threads=1 --nocapture >"$out" || { cat "$out" >&2; exit 1; }
# Without what the harness writes before the first line of a test.
sed -i -E 's/^test [a-z_:]+ \.\.\. //' "$out"
echo '| method | what is sent | CPU us | x none |'
echo '|---|---|--:|--:|'
# Dearest first: what is not at the top is cheaper.
grep -E '^\| [a-z_0-9]+ \| .* \|$' "$out" | grep -vE '\| [+-][0-9.]+ \|$' | sort -t'|' -k5,5 -rn | awk -v top="${TOP:-25}" 'NR <= top'
echo
sed -n '/^| first, second/,/^[^|]/p' "$out" | grep '^|'
echo
echo "${TIMES:-200} of each, $(uname -sm), $(nproc) cores," \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
