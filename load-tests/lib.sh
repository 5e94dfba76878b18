# shellcheck shell=bash
# Shared by the scripts here: build, start on free ports of 127.0.0.1, measure, and stop what was
# started, by process id. Source it; do not run it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
work=$(mktemp -d "${TMPDIR:-/tmp}/tollgate-load.XXXXXX")
started=()
profile=${PROFILE:-release}

finish() {
    local pid
    for pid in "${started[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${started[@]}"; do
        # At most 2 s each for a graceful end, then without grace.
        for _ in {1..20}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*" >&2; }

# Whether a tool is there; says so when it is not.
has() {
    command -v "$1" >/dev/null && return
    say "SKIPPED: $1 is not installed ($2)"
    return 1
}

# build EXAMPLE...: the gateway and these examples; sets $bin. With BIN, what is there is used.
build() {
    local flags=() example
    if [ -n "${BIN:-}" ]; then
        bin=$BIN
        return
    fi
    [ "$profile" = release ] && flags+=(--release)
    for example in "$@"; do flags+=(--example "$example"); done
    (cd "$root" && cargo build --quiet --bin tollgate "${flags[@]}" >&2)
    bin=$work/bin
    mkdir "$bin"
    ln -s "${CARGO_TARGET_DIR:-$root/target}/$profile/tollgate" "$bin/"
    for example in "$@"; do
        ln -s "${CARGO_TARGET_DIR:-$root/target}/$profile/examples/$example" "$bin/"
    done
}

# Two cores or more: the proxy has core 0 for itself. Fewer: said once, nothing pinned.
on_proxy_core=() on_load_core=()
if command -v taskset >/dev/null && taskset -c 1 true 2>/dev/null; then
    on_proxy_core=(taskset -c 0) on_load_core=(taskset -c 1)
else
    say "NOTE: fewer than two cores or no taskset; nothing is pinned, compare with care"
fi

next_port=${PORT:-18080}
# free_port: sets $port to one that nobody listens on. Not in a subshell, so that none comes twice.
free_port() {
    while next_port=$((next_port + 1)); (exec 3<>"/dev/tcp/127.0.0.1/$next_port") 2>/dev/null; do :; done
    port=$next_port
}

# start NAME COMMAND...: in the background, its output in $work/NAME.log; sets $pid.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    pid=$!
    started+=("$pid")
}

# wait_port NAME PORT: until it accepts, 10 s at most.
wait_port() {
    for _ in {1..200}; do
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    say "$1 does not listen on $2:"
    tail -n 20 "$work/$1.log" >&2
    exit 1
}

# ask PORT METHOD PATH: the answer, head and body, over a connection of its own.
ask() {
    local fd
    exec {fd}<>"/dev/tcp/127.0.0.1/$1"
    printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$2" "$3" "$1" >&$fd
    timeout 10 cat <&$fd || true
    exec {fd}>&-
}

# wait_ready NAME ADMIN_PORT: until /readyz says 200, 10 s at most.
wait_ready() {
    wait_port "$1" "$2"
    for _ in {1..100}; do
        case $(ask "$2" GET /readyz | head -n 1) in *' 200 '*) return ;; esac
        sleep 0.1
    done
    say "$1 is never ready:"
    tail -n 20 "$work/$1.log" >&2
    exit 1
}

# start_backend: sets $backend to its address.
start_backend() {
    free_port
    backend=127.0.0.1:$port
    start backend "${on_load_core[@]}" "$bin/backend" "$backend"
    wait_port backend "$port"
}

# start_gateway NAME CONFIG: from a file with @LISTEN@, @ADMIN@, @BACKEND@ and @WORK@ in it; sets
# $listen and $admin to its ports, $pid to its process and $file to its configuration.
start_gateway() {
    free_port; listen=$port
    free_port; admin=$port
    file=$work/$1.yaml
    sed -e "s|@LISTEN@|127.0.0.1:$listen|" -e "s|@ADMIN@|127.0.0.1:$admin|" \
        -e "s|@BACKEND@|http://$backend|" -e "s|@WORK@|$work/$1|" "$2" >"$file"
    start "$1" "${on_proxy_core[@]}" "$bin/tollgate" run -c "$file"
    wait_ready "$1" "$admin"
}

# make_consumers COUNT: sets $keys to a file of keys, a line each, and $consumers to the YAML of
# their consumers. Same keys in each run. One process hashes them all.
make_consumers() {
    local count=$1 i
    keys=$work/keys-$count consumers=$work/consumers-$count.yaml
    mkdir -p "$work/hash-$count"
    for ((i = 0; i < count; i++)); do
        printf 'tg_load%06d_%032d' "$i" "$((i * 7919))" >"$work/hash-$count/$i"
    done
    (cd "$work/hash-$count" && for ((i = 0; i < count; i++)); do printf '%s\n' "$(<"$i")"; done) >"$keys"
    echo 'consumers:' >"$consumers"
    (cd "$work/hash-$count" && find . -type f -print0 | xargs -0 sha256sum) |
        sed -E 's|^([0-9a-f]{64})  \./([0-9]+)$|  c\2: {plan: load, api_keys: [{id: k, hash: "sha256:\1"}]}|' >>"$consumers"
}

# start_crowd NAME MODE PORT COUNT SECONDS: connections as in crowd/crowd.py; sets $crowd to their process and
# $there to how many stand.
start_crowd() {
    start "$1" "${on_load_core[@]}" python3 "$here/crowd/crowd.py" "$2" "127.0.0.1:$3" "$4" "$5"
    crowd=$pid there=
    for _ in {1..1200}; do
        there=$(sed -n "s/^OPEN //p" "$work/$1.log" 2>/dev/null || true)
        [ -n "$there" ] && return
        kill -0 "$crowd" 2>/dev/null || break
        sleep 0.1
    done
    say "$1: no connection stands: $(tail -n 3 "$work/$1.log")"
    exit 1
}

# tree PID: the process and all that descend from it.
tree() {
    local child
    echo "$1"
    # shellcheck disable=SC2013 # one line of words
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}

# cpu_ticks PID: user and system time of its tree, in clock ticks.
cpu_ticks() {
    local total=0 process line
    for process in $(tree "$1"); do
        line=$(cat "/proc/$process/stat" 2>/dev/null) || continue
        # The name may hold spaces and brackets: what counts is after the last one.
        # shellcheck disable=SC2086
        set -- ${line##*) }
        total=$((total + ${12} + ${13}))
    done
    echo "$total"
}

# rss_kib PID: resident memory of its tree.
rss_kib() {
    local total=0 process value
    for process in $(tree "$1"); do
        value=$(awk '/^VmRSS:/ {print $2}' "/proc/$process/status" 2>/dev/null) || continue
        total=$((total + ${value:-0}))
    done
    echo "$total"
}

# What measure_in_rounds loads, by name: set these, and rounds, each and connections.
declare -A port_of pid_of keys_of tokens_of

# load NAME SECONDS: one run; prints "requests microseconds p50 p99 bad lost ticks".
load() {
    local before after out
    before=$(cpu_ticks "${pid_of[$1]}")
    out=$(KEYS=${keys_of[$1]:-} TOKENS=${tokens_of[$1]:-} timeout "$(($2 + 20))" "${on_load_core[@]}" \
        wrk -t1 -c"$connections" -d"$2s" --timeout 10s -s "$here/wrk/load.lua" "http://127.0.0.1:${port_of[$1]}/")
    after=$(cpu_ticks "${pid_of[$1]}")
    echo "$(sed -n 's/^RESULT //p' <<<"$out") $((after - before))"
    # The log of a whole run would fill a small disk; the gateway appends, so this empties it.
    if [ -f "$work/$1.access.log" ]; then : >"$work/$1.access.log"; fi
}

# measure_in_rounds: loads all of $names in turn, $rounds times.
measure_in_rounds() {
    local name round
    for name in "${names[@]}"; do load "$name" 1 >/dev/null; done
    for ((round = 1; round <= rounds; round++)); do
        say "round $round of $rounds"
        for name in "${names[@]}"; do load "$name" "$each" >>"$work/$name.results"; done
    done
}

tick=$(getconf CLK_TCK)
# median EXPRESSION NAME: over the rounds, of an awk expression of the fields of load.
median() {
    awk "{print $1}" "$work/$2.results" | sort -n | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'
}
sum() { awk "{total += $1} END {print total}" "$work/$2.results"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }

# print_table FIRST SECOND: a row a name; both are what the CPU time is compared with.
# shellcheck disable=SC2016 # the expressions are for awk
print_table() {
    local name second
    declare -A cpu
    echo "| scenario | CPU us/request | x $1 | x $2 | requests/s | p50 us | p99 us | RSS MiB | not 2xx | lost |"
    echo "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for name in "${names[@]}"; do
        cpu[$name]=$(median "\$7 * 1000000 / $tick / \$1" "$name")
        second=-
        [ -n "${cpu[$2]:-}" ] && second=$(ratio "${cpu[$name]}" "${cpu[$2]}")
        printf '| %s | %.1f | %s | %s | %.0f | %d | %d | %.1f | %d | %d |\n' "$name" "${cpu[$name]}" \
            "$(ratio "${cpu[$name]}" "${cpu[$1]}")" "$second" "$(median '$1 * 1000000 / $2' "$name")" \
            "$(median '$3' "$name")" "$(median '$4' "$name")" \
            "$(awk -v kib="$(rss_kib "${pid_of[$name]}")" 'BEGIN {print kib / 1024}')" \
            "$(sum '$5' "$name")" "$(sum '$6' "$name")"
    done
    echo
    echo "$connections connections, $rounds rounds of $each s, $profile build, $(uname -sm), $(nproc) cores," \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
}
