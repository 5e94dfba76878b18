#!/usr/bin/env bash
# Many consumers and keys, in the file and in a store: how long a start takes, what a key weighs, and
# how long a change takes until it is in force.
#   CONSUMERS=10000 KEYS=3 CHANGES=20 PROFILE=release load-tests/store.sh
# Needs the sqlite3 shell to fill a store. PostgreSQL is measured too where POSTGRES_URL names an empty
# database that may be filled (psql is needed then).
. "$(dirname "$0")/lib.sh"

count=${CONSUMERS:-10000} each=${KEYS:-3} changes=${CHANGES:-20}
has sqlite3 "Debian: apt-get install sqlite3" || exit 0
build

# now: sets $now, in microseconds.
now() { now=${EPOCHREALTIME/[.,]/}; }

# send METHOD PATH BODY: the answer of the admin API of the gateway that was started last.
send() {
    local fd
    exec {fd}<>"/dev/tcp/127.0.0.1/$admin"
    printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
        "$1" "$2" "${#3}" "$3" >&$fd
    timeout 30 cat <&$fd || true
    exec {fd}>&-
}

# head STORE...: the beginning of a configuration.
head_of() {
    cat <<YAML
version: 1
server: {workers: 1, grace_period: 1s}
listeners: [{name: http, address: "127.0.0.1:$listen"}]
admin: {address: "127.0.0.1:$admin"}
$*
plans: {load: {rate_limits: [{requests: 1000000, per: 1s}]}}
routes: [{id: all, match: {paths: [/*]}, auth: [api_key], respond: {status: 200, body: ok}}]
YAML
}

# Rows of random keys, once: consumer, key, hash.
awk -v n="$count" -v k="$each" 'BEGIN {
    srand(7)
    for (c = 0; c < n; c++) for (i = 0; i < k; i++) {
        h = ""
        for (d = 0; d < 16; d++) h = h sprintf("%04x", int(rand() * 65536))
        printf "c%06d k%d %s\n", c, i, h
    }
}' >"$work/rows"

# ready NAME FILE: starts a gateway; sets $took to the milliseconds until it is ready.
ready() {
    local begin
    now; begin=$now
    start "$1" "$bin/tollgate" run --no-watch -c "$2"
    until (exec 3<>"/dev/tcp/127.0.0.1/$admin") 2>/dev/null; do
        kill -0 "$pid" 2>/dev/null || { tail -n 5 "$work/$1.log" >&2; exit 1; }
        sleep 0.002
    done
    until [[ $(ask "$admin" GET /readyz) == *' 200 '* ]]; do sleep 0.002; done
    now; took=$(((now - begin) / 1000))
}

stop() { kill -TERM "$pid"; wait "$pid" || true; }

# measure NAME FILE: three starts, the median is kept; sets $took and $rss, leaves the last running.
measure() {
    local all=()
    for _ in 1 2 3; do
        ready "$1" "$2"
        all+=("$took")
        ((${#all[@]} == 3)) || stop
    done
    took=$(printf '%s\n' "${all[@]}" | sort -n | sed -n 2p)
    sleep 1
    rss=$(rss_kib "$pid")
}

# change NAME: makes and revokes keys of one consumer; sets $median and $slowest, in milliseconds
# until the answer, that is until it is in force in this process.
change() {
    local all=() i begin answer
    for ((i = 0; i < changes; i++)); do
        now; begin=$now
        answer=$(send POST /api/consumers/c000007/keys "{\"id\":\"$1-$i\"}")
        now; all+=($(((now - begin) / 1000)))
        [[ $answer == *' 201 '* ]] || { say "$answer"; exit 1; }
        now; begin=$now
        answer=$(send DELETE "/api/consumers/c000007/keys/$1-$i" "")
        now; all+=($(((now - begin) / 1000)))
        [[ $answer == *' 200 '* ]] || { say "$answer"; exit 1; }
    done
    median=$(printf '%s\n' "${all[@]}" | sort -n | sed -n "$((changes))p")
    slowest=$(printf '%s\n' "${all[@]}" | sort -n | tail -n 1)
}

# row NAME BASE: prints a row; BASE is the memory without consumers.
row() {
    awk -v name="$1" -v n="$count" -v k="$each" -v t="$took" -v r="$rss" -v b="$2" -v m="$median" -v s="$slowest" \
        'BEGIN {printf "| %s | %d x %d | %d | %.1f | %d | %s | %s |\n", name, n, k, t, r / 1024, (r - b) * 1024 / (n * k), m, s}'
}

sql() {
    awk -v n="$count" 'BEGIN {print "BEGIN;"}
        $2 == "k0" {printf "INSERT INTO tollgate_consumers VALUES ('\''%s'\'', '\''load'\'', '\''[]'\'', 0, 0, 1, 2);\n", $1}
        {printf "INSERT INTO tollgate_credentials VALUES ('\''%s'\'', '\''%s'\'', '\''api_key'\'', '\''sha256:%s'\'', '\''[]'\'', NULL, 0, NULL);\n", $1, $2, $3}
        END {print "UPDATE tollgate_meta SET value = 2 WHERE name = '\''revision'\''; COMMIT;"}' "$work/rows"
}

echo "| consumers in | consumers x keys | ms to ready | RSS MiB | bytes a key | ms to a change in force, median | slowest |"
echo "|---|--:|--:|--:|--:|--:|--:|"

free_port; listen=$port; free_port; admin=$port
head_of >"$work/none.yaml"
measure none "$work/none.yaml"; stop
base=$rss median=- slowest=-
echo "| nowhere | 0 | $took | $(awk -v r="$rss" 'BEGIN {printf "%.1f", r / 1024}') | | | |"

{ head_of; echo 'consumers:'; awk '$2 == "k0" {printf "  %s:\n    plan: load\n    api_keys:\n", $1}
    {printf "      - {id: %s, hash: \"sha256:%s\"}\n", $2, $3}' "$work/rows"; } >"$work/file.yaml"
measure file "$work/file.yaml"; stop
row "the file" "$base"

head_of "store: {sqlite: {path: $work/store.db}}" >"$work/sqlite.yaml"
ready sqlite "$work/sqlite.yaml"; stop
sql | sqlite3 "$work/store.db"
measure sqlite "$work/sqlite.yaml"
change sqlite
row SQLite "$base"
stop

if [ -n "${POSTGRES_URL:-}" ] && has psql "Debian: apt-get install postgresql-client"; then
    head_of "store: {postgres: {url: \"$POSTGRES_URL\"}}" >"$work/postgres.yaml"
    ready postgres "$work/postgres.yaml"; stop
    sql | psql -q "$POSTGRES_URL"
    measure postgres "$work/postgres.yaml"
    change postgres
    row PostgreSQL "$base"
    stop
fi
