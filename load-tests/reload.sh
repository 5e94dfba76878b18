#!/usr/bin/env bash
# Reloads under load: 64 keep-alive connections with API keys never stop, while the configuration
# changes 1,000 times in 60 s. No request may fail, no connection may be dropped, and the memory
# after the last reload is at most 5 % above that after the 100th. Exit 1 when one of them is not so.
#   RELOADS=1000 DURATION=60 CONNECTIONS=64 CONSUMERS=1000 PROFILE=release load-tests/reload.sh
. "$(dirname "$0")/lib.sh"

reloads=${RELOADS:-1000} duration=${DURATION:-60} connections=${CONNECTIONS:-64}
build backend client
start_backend
make_consumers "${CONSUMERS:-1000}"
cat "$here/configs/metered.yaml" "$consumers" >"$work/gateway.in"
start_gateway gateway "$work/gateway.in"
gateway=$pid
cp "$file" "$work/base.yaml"

start client "${on_load_core[@]}" "$bin/client" "127.0.0.1:$listen" "$connections" "$((duration + 3))" "$keys"
client=$pid

# now: sets $now, in microseconds.
now() { now=${EPOCHREALTIME/[.,]/}; }
# A descriptor that never has anything to read makes `read -t` a sleep without a process.
exec {idle}<> <(:)
# sleep_until MICROSECONDS
sleep_until() {
    local left seconds
    now
    left=$(($1 - now))
    ((left > 0)) || return 0
    printf -v seconds '%d.%06d' $((left / 1000000)) $((left % 1000000))
    read -rt "$seconds" -u "$idle" || true
}

refused=0 slowest=0 at_100=0
now; begin=$now
for ((i = 1; i <= reloads; i++)); do
    sed "s|id: all,|id: all-$i,|" "$work/base.yaml" >"$file.new"
    mv "$file.new" "$file"
    now; asked=$now
    answer=$(ask "$admin" POST /api/reload)
    case ${answer%%$'\r'*} in
        *' 200 '*) ;;
        *) refused=$((refused + 1)); say "reload $i: $answer" ;;
    esac
    now
    ((now - asked <= slowest)) || slowest=$((now - asked))
    ((i != 100)) || at_100=$(rss_kib "$gateway")
    sleep_until $((begin + i * duration * 1000000 / reloads))
done
now; took=$((now - begin))
at_last=$(rss_kib "$gateway")
# The client ends by itself 3 s after the time; it is given 20.
for _ in {1..200}; do kill -0 "$client" 2>/dev/null || break; sleep 0.1; done
read -r served failed dropped < <(sed -n 's/^RESULT //p' "$work/client.log") || true
: "${served:=0}" "${failed:=-1}" "${dropped:=-1}"
((failed == 0 && dropped == 0)) || head -n 5 "$work/client.log" >&2
growth=$(awk -v a="$at_100" -v b="$at_last" 'BEGIN {printf "%.1f", a ? (b / a - 1) * 100 : 0}')

echo "| reloads | seconds | refused | slowest ms | requests | failed | connections dropped | RSS after the 100th, KiB | after the last | growth % |"
echo "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
echo "| $reloads | $((took / 1000000)) | $refused | $((slowest / 1000)) | $served | $failed | $dropped | $at_100 | $at_last | $growth |"
((refused == 0 && failed == 0 && dropped == 0 && served > 0)) && awk -v g="$growth" 'BEGIN {exit !(g <= 5)}'
