#!/usr/bin/env bash
# Upgrades under load: wrk on connections that are kept and on one connection a request, with an API key each,
# while one process takes over from the other again and again, between two executables. Every tenth upgrade is
# to something that does not work, and must be refused. No request may fail, and in the end one process is
# left. Exit 1 when one of them is not so.
#   UPGRADES=100 CONNECTIONS=32 CONSUMERS=100 PROFILE=release load-tests/upgrade.sh
. "$(dirname "$0")/lib.sh"
has wrk "apt-get install wrk" || exit 0

upgrades=${UPGRADES:-100} connections=${CONNECTIONS:-32}
build backend
start_backend
make_consumers "${CONSUMERS:-100}"
cat "$here/configs/metered.yaml" "$consumers" >"$work/gateway.in"
sed -i 's/grace_period: 1s/grace_period: 30s/' "$work/gateway.in"
# The other build: another file with the same code. Its folder is one that only we can change.
cp "$(readlink -f "$bin/tollgate")" "$work/other"
printf 'another build' >>"$work/other"
printf '#!/bin/sh\n[ "$1" = check ] || exit 1\n' >"$work/broken"
chmod 755 "$work/broken"
start_gateway gateway "$work/gateway.in"

# serving: the process that answers.
serving() { ask "$admin" GET /status | sed -n 's/.*"pid":\([0-9]*\).*/\1/p'; }
# Whatever serves in the end is ours to stop.
stop_last() {
    local last
    last=$(serving) && [ -n "$last" ] && kill -TERM "$last" 2>/dev/null || true
}
trap 'stop_last; finish' EXIT

for kind in keep close; do
    header=()
    [ $kind = keep ] || header=(-H "Connection: close")
    KEYS=$keys start "wrk-$kind" "${on_load_core[@]}" wrk -t1 -c"$connections" -d600 "${header[@]}" \
        -s "$here/wrk/load.lua" "http://127.0.0.1:$listen/"
    declare "wrk_$kind=$pid"
done
sleep 1

now() { now=${EPOCHREALTIME/[.,]/}; }
upgrade() { "$bin/tollgate" upgrade -c "$file" "$@" >>"$work/upgrades.log" 2>&1; }
wrong=0 refused=0 slowest=0 total=0
for ((i = 1; i <= upgrades; i++)); do
    if ((i % 10 == 0)); then
        if upgrade --timeout 5s "$work/broken"; then wrong=$((wrong + 1)); else refused=$((refused + 1)); fi
    fi
    if ((i % 2)); then next=$work/other; else next=$(readlink -f "$bin/tollgate"); fi
    now; asked=$now
    upgrade "$next" || { wrong=$((wrong + 1)); say "upgrade $i failed: $(tail -n 3 "$work/upgrades.log")"; }
    now
    total=$((total + now - asked))
    ((now - asked <= slowest)) || slowest=$((now - asked))
done
sleep 1
# wrk sums up when it is interrupted.
kill -INT "$wrk_keep" "$wrk_close"
for _ in {1..100}; do
    kill -0 "$wrk_keep" 2>/dev/null || kill -0 "$wrk_close" 2>/dev/null || break
    sleep 0.1
done
# result NAME: requests and those that failed, of the last line.
result() { awk '/^RESULT/ {print $2, $6 + $7}' "$work/wrk-$1.log"; }
read -r kept kept_failed < <(result keep) || true
read -r closed closed_failed < <(result close) || true
: "${kept:=0}" "${kept_failed:=-1}" "${closed:=0}" "${closed_failed:=-1}"
left=0
for _ in {1..100}; do
    # The whole word, so that this command does not find itself.
    left=$(grep -lz "^$file\$" /proc/[0-9]*/cmdline 2>/dev/null | grep -c .) || true
    ((left > 1)) || break
    sleep 0.1
done

echo "| upgrades | failed upgrades | refused on purpose | mean ms | slowest ms | requests, kept connections | failed | requests, a connection each | failed | processes left |"
echo "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
echo "| $upgrades | $wrong | $refused | $((total / upgrades / 1000)) | $((slowest / 1000)) | $kept | $kept_failed | $closed | $closed_failed | $left |"
((wrong == 0 && kept_failed == 0 && closed_failed == 0 && kept > 0 && closed > 0 && left == 1))
