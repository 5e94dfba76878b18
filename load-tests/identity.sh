#!/usr/bin/env bash
# What knowing the caller costs, against a bare Pingora proxy: an API key of 10,000 consumers in the
# file and in a store, whose last use is noted, and a JSON web token, the same one and 1,000 of them.
#   ROUNDS=5 SECONDS_EACH=5 CONNECTIONS=64 PROFILE=release load-tests/identity.sh
# It listens on 127.0.0.1 only and takes about ROUNDS x 5 x (SECONDS_EACH + 1) seconds.
# shellcheck disable=SC2016 # the expressions are for awk
. "$(dirname "$0")/lib.sh"
has wrk "Debian: apt-get install wrk" || exit 0
has sqlite3 "Debian: apt-get install sqlite3" || exit 0
has openssl "Debian: apt-get install openssl" || exit 0

rounds=${ROUNDS:-5} each=${SECONDS_EACH:-5} connections=${CONNECTIONS:-64}
build bare_proxy backend
start_backend

free_port
start bare "${on_proxy_core[@]}" "$bin/bare_proxy" "127.0.0.1:$port" "$backend"
wait_port bare "$port"
names=(bare)
port_of[bare]=$port pid_of[bare]=$pid

# run NAME CONFIG: starts a gateway that is to be measured.
run() {
    start_gateway "$1" "$2"
    names+=("$1")
    port_of[$1]=$listen pid_of[$1]=$pid
}

make_consumers 10000
cat "$here/configs/keyed.yaml" "$consumers" >"$work/file.in"
run file "$work/file.in"
keys_of[file]=$keys

# The same consumers and keys in a store: made by a first start, filled while nobody runs.
{ cat "$here/configs/keyed.yaml"; echo "store: {sqlite: {path: $work/store.db}}"; } >"$work/store.in"
start_gateway empty "$work/store.in"
kill -TERM "$pid"; wait "$pid" || true
sed -nE 's|^  (c[0-9]+): .*"(sha256:[0-9a-f]+)".*|\1 \2|p' "$consumers" | awk 'BEGIN {print "BEGIN;"}
    {printf "INSERT INTO tollgate_consumers VALUES ('\''%s'\'', '\''load'\'', '\''[]'\'', 0, 0, 1, 2);\n", $1
     printf "INSERT INTO tollgate_credentials VALUES ('\''%s'\'', '\''k'\'', '\''api_key'\'', '\''%s'\'', '\''[]'\'', NULL, 0, NULL);\n", $1, $2}
    END {print "UPDATE tollgate_meta SET value = 2 WHERE name = '\''revision'\''; COMMIT;"}' | sqlite3 "$work/store.db"
run store "$work/store.in"
keys_of[store]=$keys

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
openssl genrsa -out "$work/issuer.key" 2048 2>/dev/null
openssl pkey -in "$work/issuer.key" -pubout -out "$work/issuer.pem"
# token NUMBER: by RS256, good until 2100, of about 500 bytes.
token() {
    local signed
    signed=$(printf '{"alg":"RS256","typ":"at+jwt"}' | base64url).$(printf '{"iss":"https://id.example.com/","aud":"orders","client_id":"acme-client","scope":"orders:read orders:write","exp":4102444800,"jti":"%032d"}' "$1" | base64url)
    printf '%s.%s\n' "$signed" "$(printf %s "$signed" | openssl dgst -sha256 -sign "$work/issuer.key" | base64url)"
}
say "signing 1,000 tokens"
for ((i = 0; i < 1000; i++)); do token "$i"; done >"$work/tokens-1000"
head -n 1 "$work/tokens-1000" >"$work/tokens-1"
for count in 1 1000; do
    cp "$work/issuer.pem" "$work/jwt-$count.pem"
    run "jwt-$count" "$here/configs/jwt.yaml"
    tokens_of[jwt-$count]=$work/tokens-$count
done

measure_in_rounds
print_table bare file
