#!/usr/bin/env bash
# The unit under a real systemd, booted in a container of its own network: install, start, reload, upgrade,
# an upgrade that fails, log rotation, restart and watchdog, under load from wrk. Nothing of the machine is
# changed: the container's tree is an overlay of it in memory. Needs root, systemd-nspawn
# (Debian: systemd-container) and wrk; says that it is skipped without them. Takes about a minute.
#   [BINARY=target/debug/tollgate] systemd/test.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
binary=${BINARY:-${CARGO_TARGET_DIR:-$root/target}/debug/tollgate}

skip() { echo "SKIPPED: $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "not root"
command -v systemd-nspawn >/dev/null || skip "systemd-nspawn is not installed (systemd-container)"
for tool in wrk curl; do command -v $tool >/dev/null || skip "$tool is not installed"; done
[ -x /lib/systemd/systemd ] || skip "systemd is not installed"
[ -x "$binary" ] || { echo "$binary is not there: cargo build"; exit 1; }

exposure=$(systemd-analyze security --offline=true "$here/tollgate.service" 2>/dev/null |
    sed -n 's/.*exposure level for tollgate.service: \([0-9.]*\).*/\1/p') || true
if [ -n "$exposure" ]; then
    echo "exposure by systemd-analyze security: $exposure"
    awk -v it="$exposure" 'BEGIN {exit !(it <= 2.0)}' || { echo "above 2.0"; exit 1; }
fi

work=$(mktemp -d /tmp/tollgate-systemd.XXXXXX)
finish() {
    umount -R "$work/root" 2>/dev/null || true
    umount "$work" 2>/dev/null || true
    rmdir "$work" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM
mount -t tmpfs tmpfs "$work" || skip "no tmpfs can be mounted"
mkdir "$work/upper" "$work/work" "$work/root"
tree=$work/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$tree" 2>/dev/null ||
    skip "no overlay of / can be mounted"

BINARY=$binary DESTDIR=$tree "$here/install.sh"
# Another file with the same code is another executable to everybody who looks.
mkdir "$tree/test"
cp "$binary" "$tree/test/next"
printf 'another build' >>"$tree/test/next"
cp "$here/test-inside.sh" "$tree/test/inside.sh"
# Its own target, so that no service of the machine is started.
cat >"$tree/etc/systemd/system/tollgate-test.target" <<'UNIT'
[Unit]
Requires=basic.target tollgate-test.service
After=basic.target
AllowIsolate=yes
UNIT
cat >"$tree/etc/systemd/system/tollgate-test.service" <<'UNIT'
[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=110
ExecStart=/bin/bash /test/inside.sh
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=file:/test/out
StandardError=inherit
UNIT

timeout -k 5 150 systemd-nspawn --directory="$tree" --boot --register=no --keep-unit --private-network \
    --machine=tollgate-test --quiet systemd.unit=tollgate-test.target </dev/null >"$work/console" 2>&1 || true
if [ ! -s "$tree/test/out" ]; then
    tail -n 20 "$work/console"
    if [ -n "${CI:-}" ]; then skip "systemd does not boot here"; fi
    echo "the container did not get to the test"
    exit 1
fi
cat "$tree/test/out"
grep -qx 'all as it should be' "$tree/test/out"
