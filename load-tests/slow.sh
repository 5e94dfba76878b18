#!/usr/bin/env bash
# Others' latency while COUNT clients are slow on purpose, one kind after another: heads that drip, bodies that
# drip, answers that are hardly read, connections that say nothing. Exit 1 when others' p99 more than doubles
# (plus a millisecond), or an answer of theirs is not a 200.
#   COUNT=10000 SECONDS_EACH=10 CONNECTIONS=16 PROFILE=release load-tests/slow.sh
# It listens on 127.0.0.1 only and takes about 6 x SECONDS_EACH seconds.
. "$(dirname "$0")/lib.sh"
has wrk "Debian: apt-get install wrk" || exit 0
has python3 "Debian: apt-get install python3" || exit 0

count=${COUNT:-10000} each=${SECONDS_EACH:-10} connections=${CONNECTIONS:-16}
ulimit -n "$((count * 2 + 1000))" 2>/dev/null || say "NOTE: ulimit -n is $(ulimit -n)"
build backend
start_backend
free_port
start large "${on_load_core[@]}" "$bin/backend" "127.0.0.1:$port" 4194304
wait_port large "$port"
sed -e "s|^upstreams:|&\n  large: {endpoints: [{url: \"http://127.0.0.1:$port\"}]}|" \
    -e "s|^routes:|&\n  - {id: large, match: {paths: [/large]}, public: true, upstream: large}|" \
    "$here/configs/plain.yaml" >"$work/slow.in"
start_gateway slow "$work/slow.in"
gateway=$pid

# others: one run of wrk; prints "requests microseconds p50 p99 bad lost".
others() {
    timeout "$((each + 20))" "${on_load_core[@]}" wrk -t1 -c"$connections" -d"${each}s" --timeout 10s \
        -s "$here/wrk/load.lua" "http://127.0.0.1:$listen/" | sed -n 's/^RESULT //p'
}

others >/dev/null
read -r _ _ p50 alone bad lost <<<"$(others)"
echo "| slow clients | there | p50 us | p99 us | x alone | not 2xx | lost | RSS MiB |"
echo "|---|--:|--:|--:|--:|--:|--:|--:|"
echo "| none | 0 | $p50 | $alone | 1.00 | $bad | $lost | $(($(rss_kib "$gateway") / 1024)) |"
status=0
for mode in silent heads bodies reads; do
    start_crowd "crowd-$mode" "$mode" "$listen" "$count" "$((each + 5))"
    read -r _ _ p50 p99 bad lost <<<"$(others)"
    echo "| $mode | $there | $p50 | $p99 | $(ratio "$p99" "$alone") | $bad | $lost | $(($(rss_kib "$gateway") / 1024)) |"
    if [ "$((p99))" -gt "$((alone * 2 + 1000))" ] || [ "$bad" != 0 ] || [ "$lost" != 0 ]; then status=1; fi
    kill "$crowd" 2>/dev/null || true
    wait "$crowd" 2>/dev/null || true
done
exit "$status"
