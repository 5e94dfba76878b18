#!/usr/bin/env bash
# The official conformance suite and SDKs of the Model Context Protocol, through the gateway: the same scenarios
# must pass as without it. Installs them under target/mcp-clients; says so where Node.js or the packages are
# not here. BINARY names the gateway.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=${BINARY:-target/debug/tollgate}
folder=$PWD/target/mcp-clients
skip() { echo "skipped: $*"; exit 0; }

command -v npm >/dev/null && command -v node >/dev/null || skip "Node.js and npm are not installed"
mkdir -p "$folder"
cp tests/clients/mcp/{package.json,server.mjs,sdk.mjs} "$folder/"
(cd "$folder" && npm install --no-audit --no-fund --loglevel=error --ignore-scripts) || skip "the packages cannot be installed"
# The suite needs Node.js 22, which a package brings.
(cd "$folder/node_modules/node" && node installArchSpecificPackage.js >/dev/null 2>&1) || true
node=$folder/node_modules/node/bin/node
"$node" --version >/dev/null 2>&1 || skip "Node.js 22 is not here"

scratch=$(mktemp -d)
pids=()
finish() { kill "${pids[@]}" 2>/dev/null || true; rm -rf "$scratch"; }
trap finish EXIT
(cd "$folder" && exec "$node" server.mjs) >"$scratch/port" &
pids+=($!)
for _ in $(seq 100); do [ -s "$scratch/port" ] && break; sleep 0.1; done
server=http://127.0.0.1:$(cat "$scratch/port")
read -r port admin everything < <(python3 - <<'PORTS' 2>/dev/null || echo "28080 28090 28070"
import socket
sockets = [socket.socket() for _ in range(3)]
for it in sockets: it.bind(("127.0.0.1", 0))
print(*(it.getsockname()[1] for it in sockets))
PORTS
)
(cd "$folder" && PORT=$everything exec "$node" node_modules/@modelcontextprotocol/server-everything/dist/index.js streamableHttp) >/dev/null 2>&1 &
pids+=($!)
{
  printf 'version: 1\nlisteners: [{name: http, address: "127.0.0.1:%s"}]\nadmin: {address: "127.0.0.1:%s"}\nmcp:\n  servers:\n' "$port" "$admin"
  for name in both legacy modern; do echo "    $name: {url: \"$server/$name\", cache: 1s}"; done
  echo "    everything: {url: \"http://127.0.0.1:$everything/mcp\"}"
  echo "routes:"
  for name in both legacy modern everything; do
    echo "  - {id: $name, match: {paths: [/$name]}, public: true, mcp: {servers: [$name], prefix: false}}"
  done
} >"$scratch/tollgate.yaml"
"$binary" run -c "$scratch/tollgate.yaml" >"$scratch/gateway.log" 2>&1 &
pids+=($!)
gateway=http://127.0.0.1:$port
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$everything") 2>/dev/null && break; sleep 0.1; done
for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done

# The scored scenarios of a revision, each with its mark.
scored() { # URL REVISION
  "$node" "$folder/node_modules/@modelcontextprotocol/conformance/dist/index.js" server --url "$1" --requirements "$2" >"$scratch/out" 2>&1 || true
  local wanted
  wanted=$(sed -n '/^server:/,/^client:/s/^  - //p' "$folder/node_modules/@modelcontextprotocol/conformance/requirements/$2.yaml")
  # A scenario with failed checks, or with warnings, has another mark.
  sed -n 's/^\([✓✗]\) \([^ :]*\): .*/\2 \1/p' "$scratch/out" | grep -Fwf <(echo "$wanted") | sort -u
}

failed=0
for revision in 2025-11-25 2026-07-28; do
  scored "$server/both" "$revision" >"$scratch/direct"
  scored "$gateway/both" "$revision" >"$scratch/through"
  passed=$(grep -c ✓ "$scratch/through" || true)
  echo "conformance $revision: $(grep -c ✓ "$scratch/direct" || true) of $(wc -l <"$scratch/direct") scenarios pass without the gateway, $passed through it"
  [ "$passed" -gt 20 ] && diff "$scratch/direct" "$scratch/through" || failed=1
done
(cd "$folder" && "$node" sdk.mjs "$gateway") || failed=1
[ "$failed" = 0 ] || { tail -20 "$scratch/gateway.log"; exit 1; }
