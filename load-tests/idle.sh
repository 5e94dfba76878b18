#!/usr/bin/env bash
# What an idle keep-alive connection takes: COUNT of them that have each had one answer, by RSS before and after.
#   COUNT=5000 PROFILE=release load-tests/idle.sh
# It listens on 127.0.0.1 only and takes about half a minute.
. "$(dirname "$0")/lib.sh"
has python3 "Debian: apt-get install python3" || exit 0

count=${COUNT:-5000}
ulimit -n "$((count + 1000))" 2>/dev/null || say "NOTE: ulimit -n is $(ulimit -n)"
build bare_proxy backend
start_backend

# measure NAME PORT PID: prints a row.
measure() {
    local before after
    # What the first requests take is not the connections'.
    for _ in 1 2 3 4 5 6 7 8 9 10; do ask "$2" GET / >/dev/null; done
    before=$(rss_kib "$3")
    start_crowd "crowd-$1" idle "$2" "$count" 5
    sleep 2
    after=$(rss_kib "$3")
    wait "$crowd" || true
    echo "| $1 | $there | $((before)) | $((after)) | $(((after - before) * 1024 / there)) |"
}

echo "| | connections | RSS before, KiB | RSS with them, KiB | bytes each |"
echo "|---|--:|--:|--:|--:|"
free_port
start bare "$bin/bare_proxy" "127.0.0.1:$port" "$backend"
bare=$pid bare_port=$port
wait_port bare "$port"
measure bare "$bare_port" "$bare"
start_gateway plain "$here/configs/plain.yaml"
measure gateway "$listen" "$pid"
