# `just check` is exactly what CI runs.
check:
    bash .ci/run

test:
    cargo test

fmt:
    cargo fmt --all

# Each criterion bench; a few minutes.
bench:
    cargo bench

# CPU a request against the bare Pingora proxy.
load:
    load-tests/run.sh

fuzz:
    PROPTEST_CASES=100000 cargo test --lib -- proptest

# The executable, the unit, its user and folders; see systemd/README.md.
install:
    cargo build --release
    sudo systemd/install.sh
