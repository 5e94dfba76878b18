# shellcheck shell=bash
# Runs inside the container that test.sh boots.
set -uo pipefail
cd /test
failures=0
check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then echo "ok    $what"; else echo "WRONG $what"; failures=$((failures + 1)); fi
}
property() { systemctl show tollgate -p "$1" --value; }
main_pid() { property MainPID; }
is() { [ "$1" = "$2" ] || { echo "      $1 is not $2"; return 1; }; }
within() { # within SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}
changed_from() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ]; }
active() { [ "$(property ActiveState)" = active ]; }
gone() { [ ! -e "/proc/$1" ]; }
ready() { [ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9900/readyz)" = 200 ]; }
# load NAME SECONDS [HEADER]: in the background.
load() { wrk -t1 -c16 -d"$2" ${3:+-H "$3"} http://127.0.0.1/ >"wrk-$1" 2>&1 & }
# failed NAME: requests that failed.
failed() {
    awk '/Socket errors/ {gsub(",", ""); n += $4 + $6 + $8 + $10} /Non-2xx/ {n += $NF} END {print n + 0}' "wrk-$1"
}
served() { awk '/requests in/ {print $1}' "wrk-$1"; }
put() { cp "$1" /usr/bin/tollgate.new && mv -f /usr/bin/tollgate.new /usr/bin/tollgate; }

# A watchdog that need not be waited for, and more log than the default lets through.
mkdir -p /run/systemd/system/tollgate.service.d
printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/tollgate.service.d/test.conf
systemctl daemon-reload

check "it starts, and is active only when it serves" systemctl start tollgate
if ! active; then
    journalctl -u tollgate --no-pager -o cat | tail -n 20
    exit
fi
check "ready" ready
first=$(main_pid)
check "it runs as its own user" is "$(ps -o user= -p "$first")" tollgate
check "its runtime directory is its own" is "$(stat -c '%U %a' /run/tollgate)" "tollgate 700"
check "its line of status says what it serves" grep -q "serving revision" <<<"$(property StatusText)"

load keep 24
load close 24 "Connection: close"
sleep 1
check "a reload" systemctl reload tollgate
check "the same process after the reload" is "$(main_pid)" "$first"
cp /etc/tollgate/tollgate.yaml good.yaml
echo 'nonsense: 1' >>/etc/tollgate/tollgate.yaml
check "a reload of a bad file fails" eval '! systemctl reload tollgate 2>/dev/null'
check "and the service goes on" active
cp good.yaml /etc/tollgate/tollgate.yaml

cp /usr/bin/tollgate before
put next
upgrade_by_signal() { systemctl kill -s USR2 --kill-whom=main tollgate; }
upgrade_by_signal
check "an upgrade to another build has another main process" within 20 changed_from "$first"
second=$(main_pid)
check "which is the new build" cmp -s "/proc/$second/exe" next
check "the old one leaves" within 40 gone "$first"
check "active" active
check "it may bind low ports still" grep -q '^CapEff:.*400$' "/proc/$second/status"

printf '#!/bin/sh\nexit 1\n' >broken
chmod 755 broken
put broken
upgrade_by_signal
check "an upgrade to something broken is counted" within 10 \
    eval "curl -s http://127.0.0.1:9900/metrics | grep -q 'upgrades_total{result=\"failure\"} 1'"
check "and the same process goes on" is "$(main_pid)" "$second"
put before
check "a rollback by the verb" /usr/bin/tollgate upgrade -c /etc/tollgate/tollgate.yaml
check "has a third main process" within 5 changed_from "$second"
third=$(main_pid)
check "of the build before" cmp -s "/proc/$third/exe" before
mv /var/log/tollgate/access.log /var/log/tollgate/access.log.1
systemctl kill -s USR1 --kill-whom=main tollgate
check "the access log is opened anew" within 5 test -s /var/log/tollgate/access.log
wait
for name in keep close; do
    echo "      $name: $(served $name) requests, $(failed $name) failed"
    check "no request failed ($name)" is "$(failed $name)" 0
    check "requests were served ($name)" test "$(served $name)" -gt 100
done
check "systemd never had to restart it" is "$(property NRestarts)" 0

kill -KILL "$(main_pid)"
check "systemd notices that a process which took over has died" within 15 changed_from "$third"
check "and starts another" within 10 ready

load restart 6
sleep 1
check "a restart" systemctl restart tollgate
wait
echo "      over a restart: $(served restart) requests, $(failed restart) failed"
fourth=$(main_pid)
kill -STOP "$fourth"
check "a process that stands still is replaced" within 15 changed_from "$fourth"
check "active" within 15 active
check "ready" within 10 ready
check "a stop" systemctl stop tollgate
check "ends well" is "$(property Result)" success

if [ "$failures" = 0 ]; then
    echo "all as it should be"
else
    echo "$failures wrong; the log:"
    journalctl -u tollgate --no-pager -o cat | tail -n 60
    systemctl status tollgate --no-pager | head -n 20
fi
