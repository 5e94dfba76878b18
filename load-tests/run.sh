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

measure_in_rounds
print_table bare plain
