#!/usr/bin/env bash
# A thousand clients on kept connections ask for one thing at once, on the release build: a cold object is
# fetched once, and nobody queues for one that is not kept.
#   CROWD=1000 load-tests/herd.sh
set -euo pipefail
cd "$(dirname "$0")/.."
crowd=${CROWD:-1000}
# A client, its end in the gateway, a connection to the origin, its end there.
needed=$((crowd * 4 + 200))
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge "$needed" ] || ulimit -n "$needed"
TOLLGATE_CROWD=$crowd cargo test --quiet --release --test it cache_promises::crowd -- --test-threads=1
