#!/usr/bin/env bash
# What many streams at once take of memory: 2,000 in flight, same API and translated, each an event a second.
#   STREAMS=2000 HOLD=15 PROFILE=release load-tests/streams.sh
# Fails where a stream breaks off or the gateway takes more than 200 MiB (MOST, for 2,000 streams).
. "$(dirname "$0")/lib.sh"

streams=${STREAMS:-2000} hold=${HOLD:-15} most=${MOST:-200}
build model
# Each stream has two descriptors in the gateway.
ulimit -n "$((streams * 3 + 1000))" 2>/dev/null || say "NOTE: the limit of descriptors stays $(ulimit -n)"
free_port
backend=127.0.0.1:$port
start stub "${on_load_core[@]}" "$bin/model" serve "$backend" 0 600 1000
wait_port stub "$port"
status=0
echo "| streams | open | events | RSS before MiB | RSS at most MiB | KiB a stream |"
echo "|---|--:|--:|--:|--:|--:|"
for model in same translated; do
    start_gateway "$model" "$here/configs/llm.yaml"
    printf '/v1/chat/completions\n{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "hello"}]}\n' "$model" >"$work/body"
    before=$(rss_kib "$pid") top=0
    "${on_load_core[@]}" "$bin/model" hold "127.0.0.1:$listen" "$streams" "$hold" "$work/body" "X-API-Key: test" >"$work/held" &
    holding=$!
    while kill -0 "$holding" 2>/dev/null; do
        now=$(rss_kib "$pid")
        [ "$now" -gt "$top" ] && top=$now
        sleep 0.2
    done
    wait "$holding" || { say "not all $streams streams stayed open"; status=1; }
    read -r _ open seen <"$work/held"
    awk -v name="$model" -v open="$open" -v seen="$seen" -v before="$before" -v top="$top" -v n="$streams" 'BEGIN {
        printf "| %s | %d | %d | %.1f | %.1f | %.1f |\n", name, open, seen, before / 1024, top / 1024, (top - before) / n}'
    if [ "$top" -gt "$((most * 1024))" ]; then
        say "$model: more than $most MiB"
        status=1
    fi
    kill -TERM "$pid"
done
echo
echo "$streams streams for $hold s, $profile build, $(uname -sm), $(nproc) cores"
exit "$status"
