#!/usr/bin/env bash
# Installs the gateway as a service: the executable, the unit, its user and folders, and a first configuration
# where there is none. The executable is replaced by a rename, so a running gateway goes on and an upgrade
# starts the new one; the one before is kept beside it for a rollback.
#   [BINARY=target/release/tollgate] [DESTDIR=] systemd/install.sh
# With DESTDIR nothing outside that folder is touched and nothing is started.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
binary=${BINARY:-${CARGO_TARGET_DIR:-$root/target}/release/tollgate}
destdir=${DESTDIR:-}

[ -x "$binary" ] || { echo "$binary is not there: cargo build --release" >&2; exit 1; }
"$binary" --version >/dev/null || { echo "$binary does not run here" >&2; exit 1; }
[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }

put() { install -D -m "$1" "$2" "$destdir$3"; }

target=$destdir/usr/bin/tollgate
if [ -e "$target" ] && ! cmp -s "$binary" "$target"; then
    cp -p "$target" "$target.previous"
fi
put 0755 "$binary" /usr/bin/tollgate.new
mv -f "$target.new" "$target"
put 0644 "$here/tollgate.service" /usr/lib/systemd/system/tollgate.service
put 0644 "$here/tollgate.sysusers" /usr/lib/sysusers.d/tollgate.conf
put 0644 "$here/tollgate.tmpfiles" /usr/lib/tmpfiles.d/tollgate.conf
put 0644 "$here/tollgate.logrotate" /etc/logrotate.d/tollgate
[ -e "$destdir/etc/tollgate/tollgate.yaml" ] || put 0640 "$root/conf/service.yaml" /etc/tollgate/tollgate.yaml

[ -z "$destdir" ] || exit 0
systemd-sysusers tollgate.conf
systemd-tmpfiles --create tollgate.conf
systemctl daemon-reload
if systemctl is-active --quiet tollgate; then
    echo "installed; \`tollgate upgrade\` has it take over from the one that runs"
else
    echo "installed; \`systemctl enable --now tollgate\` starts it"
fi
