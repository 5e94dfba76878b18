#!/usr/bin/env bash
# Whether memory stays flat: key, limit, metrics and log at 1,000 consumers under load for MINUTES, with a reload a
# minute; RSS each ten seconds. Exit 1 when the mean of the last quarter is more than 5 % above that of the second.
#   MINUTES=30 CONNECTIONS=64 PROFILE=release load-tests/soak.sh
# SECONDS_EACH (instead of MINUTES) is to try it. It listens on 127.0.0.1 only.
# shellcheck disable=SC2016 # the expressions are for awk
. "$(dirname "$0")/lib.sh"
has wrk "Debian: apt-get install wrk" || exit 0

seconds=${SECONDS_EACH:-$((${MINUTES:-30} * 60))} connections=${CONNECTIONS:-64}
build backend
start_backend
make_consumers 1000
cat "$here/configs/metered.yaml" "$consumers" >"$work/soak.in"
start_gateway soak "$work/soak.in"
gateway=$pid

KEYS=$keys start wrk "${on_load_core[@]}" wrk -t1 -c"$connections" -d"${seconds}s" --timeout 10s \
    -s "$here/wrk/load.lua" "http://127.0.0.1:$listen/"
load=$pid
every=$((seconds >= 400 ? 10 : 1))
second=0
while kill -0 "$load" 2>/dev/null; do
    sleep "$every"
    second=$((second + every))
    echo "$second $(rss_kib "$gateway")" >>"$work/rss"
    : >"$work/soak.access.log"
    if [ $((second % 60)) -lt "$every" ]; then
        echo "# $second" >>"$file"
        "$bin/tollgate" reload --admin "127.0.0.1:$admin" >/dev/null || say "a reload failed at $second s"
    fi
done
read -r requests _ p50 p99 bad lost <<<"$(sed -n 's/^RESULT //p' "$work/wrk.log")"
if [ -n "${RESULTS:-}" ]; then cp "$work/rss" "$RESULTS"; fi
awk -v requests="$requests" -v p50="$p50" -v p99="$p99" -v bad="$bad" -v lost="$lost" '
    {rss[NR] = $2; if ($2 > most) most = $2}
    END {
        quarter = int(NR / 4); if (quarter < 1) quarter = 1
        for (i = 1; i <= quarter; i++) {second += rss[quarter + i]; last += rss[NR - quarter + i]}
        growth = (last / second - 1) * 100
        print "| requests | p50 us | p99 us | not 2xx | lost | RSS MiB, second quarter | last quarter | most | growth |"
        print "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        printf "| %d | %d | %d | %d | %d | %.1f | %.1f | %.1f | %.1f %% |\n", requests, p50, p99, bad, lost,
            second / quarter / 1024, last / quarter / 1024, most / 1024, growth
        exit growth > 5 || bad > 0
    }' "$work/rss"
