#!/usr/bin/env bash
# What a request costs: a bare Pingora proxy, the gateway plain, and the gateway with key, limit,
# metrics and access log at 10 and at 10,000 consumers. Rounds are interleaved, medians are printed.
#   ROUNDS=5 SECONDS_EACH=5 CONNECTIONS=64 PROFILE=release load-tests/run.sh
# It listens on 127.0.0.1 only and takes about ROUNDS x 4 x (SECONDS_EACH + 1) seconds.
# shellcheck disable=SC2016 # the expressions are for awk
. "$(dirname "$0")/lib.sh"
has wrk "Debian: apt-get install wrk" || exit 0

rounds=${ROUNDS:-5} each=${SECONDS_EACH:-5} connections=${CONNECTIONS:-64}
build bare_proxy backend
start_backend

declare -A port_of pid_of keys_of
names=(bare plain metered-10 metered-10000)

free_port
start bare "${on_proxy_core[@]}" "$bin/bare_proxy" "127.0.0.1:$port" "$backend"
wait_port bare "$port"
port_of[bare]=$port pid_of[bare]=$pid keys_of[bare]=

start_gateway plain "$here/configs/plain.yaml"
port_of[plain]=$listen pid_of[plain]=$pid keys_of[plain]=

for count in 10 10000; do
    name=metered-$count
    make_consumers "$count"
    cat "$here/configs/metered.yaml" "$consumers" >"$work/$name.in"
    start_gateway "$name" "$work/$name.in"
    port_of[$name]=$listen pid_of[$name]=$pid keys_of[$name]=$keys
done

# load NAME SECONDS: one run; prints "requests microseconds p50 p99 bad lost ticks".
load() {
    local before after out
    before=$(cpu_ticks "${pid_of[$1]}")
    out=$(KEYS=${keys_of[$1]} timeout "$(($2 + 20))" "${on_load_core[@]}" wrk -t1 -c"$connections" \
        -d"$2s" --timeout 10s -s "$here/wrk/load.lua" "http://127.0.0.1:${port_of[$1]}/")
    after=$(cpu_ticks "${pid_of[$1]}")
    echo "$(sed -n 's/^RESULT //p' <<<"$out") $((after - before))"
    # The log of a whole run would fill a small disk; the gateway appends, so this empties it.
    if [ -f "$work/$1.access.log" ]; then : >"$work/$1.access.log"; fi
}

for name in "${names[@]}"; do load "$name" 1 >/dev/null; done
for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    for name in "${names[@]}"; do load "$name" "$each" >>"$work/$name.results"; done
done

declare -A cpu
echo "| scenario | CPU us/request | x bare | x plain | requests/s | p50 us | p99 us | RSS MiB | not 2xx | lost |"
echo "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
for name in "${names[@]}"; do
    cpu[$name]=$(median "\$7 * 1000000 / $tick / \$1" "$name")
    plain=-
    [ -n "${cpu[plain]:-}" ] && plain=$(ratio "${cpu[$name]}" "${cpu[plain]}")
    printf '| %s | %.1f | %s | %s | %.0f | %d | %d | %.1f | %d | %d |\n' "$name" "${cpu[$name]}" \
        "$(ratio "${cpu[$name]}" "${cpu[bare]}")" "$plain" "$(median '$1 * 1000000 / $2' "$name")" \
        "$(median '$3' "$name")" "$(median '$4' "$name")" \
        "$(awk -v kib="$(rss_kib "${pid_of[$name]}")" 'BEGIN {print kib / 1024}')" \
        "$(sum '$5' "$name")" "$(sum '$6' "$name")"
done
echo
echo "$connections connections, $rounds rounds of $each s, $profile build, $(uname -sm), $(nproc) cores," \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
