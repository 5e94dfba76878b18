#!/usr/bin/env bash
# What a hit costs, at 1 KiB and at 100 KiB: the gateway's cache, nginx's proxy_cache, and the bare Pingora
# proxy that asks the upstream each time. Rounds are interleaved, medians are printed.
#   ROUNDS=5 SECONDS_EACH=4 CONNECTIONS=64 PROFILE=release load-tests/cache.sh
# It listens on 127.0.0.1 only and takes about ROUNDS x 6 x (SECONDS_EACH + 1) seconds.
# shellcheck disable=SC2016 # the expressions are for awk
. "$(dirname "$0")/lib.sh"
has wrk "Debian: apt-get install wrk" || exit 0

rounds=${ROUNDS:-5} each=${SECONDS_EACH:-4} connections=${CONNECTIONS:-64}
build bare_proxy backend

declare -A port_of pid_of
names=()
for size in 1024 102400; do
    free_port
    backend=127.0.0.1:$port
    start "backend-$size" "${on_load_core[@]}" "$bin/backend" "$backend" "$size"
    wait_port "backend-$size" "$port"

    free_port
    start "bare-$size" "${on_proxy_core[@]}" "$bin/bare_proxy" "127.0.0.1:$port" "$backend"
    wait_port "bare-$size" "$port"
    port_of[bare-$size]=$port pid_of[bare-$size]=$pid
    names+=("bare-$size")

    start_gateway "hit-$size" "$here/configs/cached.yaml"
    port_of[hit-$size]=$listen pid_of[hit-$size]=$pid
    names+=("hit-$size")

    if has nginx "Debian: apt-get install nginx"; then
        free_port
        mkdir "$work/nginx-$size"
        sed -e "s|@LISTEN@|127.0.0.1:$port|" -e "s|@BACKEND@|http://$backend|" \
            -e "s|@WORK@|$work/nginx-$size|" "$here/configs/nginx-cache.conf" >"$work/nginx-$size.conf"
        chmod 777 "$work" "$work/nginx-$size"
        start "nginx-$size" "${on_proxy_core[@]}" nginx -e "$work/nginx-$size/early.log" -c "$work/nginx-$size.conf"
        wait_port "nginx-$size" "$port"
        port_of[nginx-$size]=$port pid_of[nginx-$size]=$pid
        names+=("nginx-$size")
    fi
done

# load NAME SECONDS: one run; prints "requests microseconds p50 p99 bad lost ticks".
load() {
    local before after out
    before=$(cpu_ticks "${pid_of[$1]}")
    out=$(timeout "$(($2 + 20))" "${on_load_core[@]}" wrk -t1 -c"$connections" -d"$2s" --timeout 10s \
        -s "$here/wrk/load.lua" "http://127.0.0.1:${port_of[$1]}/")
    after=$(cpu_ticks "${pid_of[$1]}")
    echo "$(sed -n 's/^RESULT //p' <<<"$out") $((after - before))"
}

for name in "${names[@]}"; do load "$name" 1 >/dev/null; done
for size in 1024 102400; do
    said=$(ask "${port_of[hit-$size]}" GET /)
    [[ ${said,,} == *'cache-status: tollgate; hit;'* ]] || {
        say "the gateway does not answer from its cache"
        exit 1
    }
done
for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    for name in "${names[@]}"; do load "$name" "$each" >>"$work/$name.results"; done
done

declare -A cpu
for name in "${names[@]}"; do cpu[$name]=$(median "\$7 * 1000000 / $tick / \$1" "$name"); done
echo "| scenario | bytes | CPU us/request | x bare | x nginx | requests/s | p50 us | p99 us | not 2xx | lost |"
echo "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
for name in "${names[@]}"; do
    size=${name#*-} nginx=-
    [ -n "${cpu[nginx-$size]:-}" ] && nginx=$(ratio "${cpu[$name]}" "${cpu[nginx-$size]}")
    printf '| %s | %d | %.1f | %s | %s | %.0f | %d | %d | %d | %d |\n' "${name%-*}" "$size" "${cpu[$name]}" \
        "$(ratio "${cpu[$name]}" "${cpu[bare-$size]}")" "$nginx" "$(median '$1 * 1000000 / $2' "$name")" \
        "$(median '$3' "$name")" "$(median '$4' "$name")" "$(sum '$5' "$name")" "$(sum '$6' "$name")"
done
echo
echo "$connections connections, $rounds rounds of $each s, $profile build, $(uname -sm), $(nproc) cores," \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
