#!/usr/bin/env bash
# What the gateway adds to a call of a model: latency and CPU a request, whole, translated and streamed, and CPU
# a streamed event, with a key, quotas in tokens and money, and metrics on. LiteLLM and Portkey run beside it
# where they can be installed.
#   RATE=1000 SECONDS_EACH=5 DELAY=20 EVENTS=200 PEERS=1 PROFILE=release load-tests/llm.sh
# It listens on 127.0.0.1 only. Each row is a run of SECONDS_EACH at RATE calls a second (peers: PEER_RATE); the
# peers take minutes to install, into a folder that is removed.
. "$(dirname "$0")/lib.sh"

rate=${RATE:-1000} each=${SECONDS_EACH:-5} delay=${DELAY:-20} events=${EVENTS:-200} peer_rate=${PEER_RATE:-50}
stream_rate=${STREAM_RATE:-20}
key="X-API-Key: test"
build model

# body NAME MODEL MORE: a question, its path before it; sets $question.
body() {
    question=$work/$1.body
    printf '/v1/chat/completions\n{"model": "%s", "messages": [{"role": "system", "content": "You answer briefly."}, {"role": "user", "content": "Which of our orders are late, and by how many days?"}]%s}\n' "$2" "$3" >"$question"
}

free_port
stub=127.0.0.1:$port backend=127.0.0.1:$port
start stub "${on_load_core[@]}" "$bin/model" serve "$stub" "$delay" "$events" 0
wait_port stub "$port"

echo "| scenario | calls/s | p50 ms | p99 ms | p50 added | p99 added | CPU us/call | CPU us/event | failed |"
echo "|---|--:|--:|--:|--:|--:|--:|--:|--:|"

declare -A base
# row NAME ADDRESS PID RATE HEADERS KIND: KIND is whole or stream; what is added is to the stub's own row, whose
# process (0) is not counted.
row() {
    local before after answered failed p50 p99 seen
    "${on_load_core[@]}" "$bin/model" ask "$2" "$4" 1 "$question" "$5" >/dev/null || true
    before=$([ "$3" = 0 ] || cpu_ticks "$3")
    read -r _ answered failed p50 p99 seen < <("${on_load_core[@]}" "$bin/model" ask "$2" "$4" "$each" "$question" "$5")
    after=$([ "$3" = 0 ] || cpu_ticks "$3")
    if [ "$answered" = 0 ]; then
        echo "| $1 | $4 | - | - | - | - | - | - | $failed |"
        say "NOTE: $1: no call was answered"
        return
    fi
    [ -n "${base[$6-p50]:-}" ] || base[$6-p50]=$p50 base[$6-p99]=$p99
    awk -v name="$1" -v rate="$4" -v p50="$p50" -v p99="$p99" -v b50="${base[$6-p50]}" -v b99="${base[$6-p99]}" \
        -v us=$(((after - before) * 1000000 / tick)) -v calls="$answered" -v events="$seen" -v failed="$failed" 'BEGIN {
        printf "| %s | %d | %.2f | %.2f | %.2f | %.2f | %s | %s | %d |\n", name, rate, p50 / 1000, p99 / 1000,
            (p50 - b50) / 1000, (p99 - b99) / 1000, us && calls ? sprintf("%.0f", us / calls) : "-",
            us && events ? sprintf("%.1f", us / events) : "-", failed}'
}
# Of the stub alone, whose process is not counted.
body same same ''
row "the stub, whole" "$stub" 0 "$rate" "X-A: b" whole
start_gateway gateway "$here/configs/llm.yaml"
gateway=127.0.0.1:$listen gateway_pid=$pid
row "tollgate, same API" "$gateway" "$gateway_pid" "$rate" "$key" whole
body translated translated ''
row "tollgate, translated" "$gateway" "$gateway_pid" "$rate" "$key" whole
body same-stream same ', "stream": true'
row "the stub, streamed" "$stub" 0 "$stream_rate" "X-A: b" stream
row "tollgate, streamed, same API" "$gateway" "$gateway_pid" "$stream_rate" "$key" stream
body translated-stream translated ', "stream": true'
row "tollgate, streamed, translated" "$gateway" "$gateway_pid" "$stream_rate" "$key" stream

# litellm: a virtual environment of its own.
litellm() {
    has python3 "Debian: apt-get install python3 python3-venv" || return 0
    if ! { python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet 'litellm[proxy]'; } >"$work/pip.log" 2>&1; then
        say "SKIPPED: LiteLLM cannot be installed: $(tail -n 1 "$work/pip.log")"
        return
    fi
    free_port
    printf 'model_list:\n  - model_name: same\n    litellm_params: {model: openai/m, api_base: "http://%s/v1", api_key: load}\n' "$stub" >"$work/litellm.yaml"
    start litellm "${on_proxy_core[@]}" "$work/venv/bin/litellm" --config "$work/litellm.yaml" --host 127.0.0.1 --port "$port" --num_workers 1
    local address=127.0.0.1:$port
    for _ in {1..360}; do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.5; done
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        say "SKIPPED: LiteLLM does not start: $(tail -n 1 "$work/litellm.log")"
        return
    fi
    peer LiteLLM "$address" "$pid" "Authorization: Bearer none"
}

portkey() {
    { has node "Debian: apt-get install nodejs" && has npm "Debian: apt-get install npm"; } || return 0
    mkdir -p "$work/portkey"
    if ! (cd "$work/portkey" && npm init -y && npm install @portkey-ai/gateway) >"$work/npm.log" 2>&1; then
        say "SKIPPED: Portkey cannot be installed: $(tail -n 1 "$work/npm.log")"
        return
    fi
    free_port
    # Its streams fail under Node 20 (`TypeError: immutable`): newer is better.
    start portkey "${on_proxy_core[@]}" env PORT="$port" node "$work/portkey/node_modules/@portkey-ai/gateway/build/start-server.js" --port="$port" --headless
    local address=127.0.0.1:$port
    for _ in {1..60}; do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.5; done
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        say "SKIPPED: Portkey does not start: $(tail -n 1 "$work/portkey.log")"
        return
    fi
    # It is told where to go by headers.
    peer Portkey "$address" "$pid" "Authorization: Bearer load
x-portkey-provider: openai
x-portkey-custom-host: http://$stub/v1"
}

# peer NAME ADDRESS PID HEADERS: the same questions at a rate that it can follow, and ours beside it.
peer() {
    body same same ''
    row "$1, same API" "$2" "$3" "$peer_rate" "$4" whole
    row "tollgate, at its rate" "$gateway" "$gateway_pid" "$peer_rate" "$key" whole
    body same-stream same ', "stream": true'
    row "$1, streamed" "$2" "$3" "${PEER_STREAM_RATE:-5}" "$4" stream
    kill -TERM "$3" 2>/dev/null || true
}

if [ "${PEERS:-1}" = 1 ]; then
    litellm
    portkey
else
    say "SKIPPED: LiteLLM and Portkey (PEERS=0)"
fi
echo
echo "$each s a row, the stub waits $delay ms and streams $events events, $profile build, $(uname -sm), $(nproc) cores," \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
