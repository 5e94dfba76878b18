#!/usr/bin/env bash
# The public suite for HTTP caches (npm package http-cache-tests) against the gateway, in front of the
# suite's own origin. Prints a table and each required test that fails; with --write, docs/cache.md gets
# the table. Exit 1 when fewer required tests pass than tests/cache_suite/expected says.
#   PROFILE=debug tests/cache_suite/run.sh [--write]
# Listens on 127.0.0.1 only, takes about half a minute, and stops only what it started.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
profile=${PROFILE:-debug}
version=0.4.5
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "skipped: the cache suite needs node and npm"
    exit 0
fi
suite=${CARGO_TARGET_DIR:-$root/target}/cache-suite
if [ ! -d "$suite/node_modules/http-cache-tests" ]; then
    mkdir -p "$suite"
    if ! (cd "$suite" && npm install --silent --no-audit --no-fund --prefix . "http-cache-tests@$version" >/dev/null 2>&1); then
        echo "skipped: the npm package http-cache-tests cannot be installed"
        exit 0
    fi
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/tollgate-cache.XXXXXX")
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

port=${PORT:-18600}
free_port() {
    while port=$((port + 1)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
}
free_port; origin=$port
free_port; gateway=$port
free_port; admin=$port
wait_port() {
    for _ in {1..200}; do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    echo "nothing listens on $1"; exit 1
}

tests=$suite/node_modules/http-cache-tests
(cd "$tests" && npm_config_protocol=http npm_config_port=$origin npm_config_pidfile=$work/pid \
    exec node --no-warnings server/server.mjs >"$work/origin.log" 2>&1) &
started+=($!)
cat >"$work/gateway.yaml" <<YAML
version: 1
listeners: [{name: http, address: "127.0.0.1:$gateway"}]
admin: {address: "127.0.0.1:$admin"}
cache: {memory: 64MiB}
upstreams: {origin: {endpoints: [{url: "http://127.0.0.1:$origin"}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: origin, cache: {store_set_cookie: true}}
YAML
"$root/target/$profile/tollgate" run -c "$work/gateway.yaml" >"$work/gateway.log" 2>&1 &
started+=($!)
wait_port "$origin"
wait_port "$gateway"
(cd "$tests" && npm_package_config_id='' npm_config_base=http://127.0.0.1:$gateway \
    timeout 300 node --no-warnings cli.mjs >"$work/results.json")
node --no-warnings "$here/score.mjs" "$tests" "$work/results.json" "$here/expected" \
    "${1:+$root/docs/cache.md}"
