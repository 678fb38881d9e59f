#!/bin/sh
# Makes report.png beside this file: a scenario is played to a program that sends datagrams to itself, and its page is drawn by
# a browser. As root, with `fault`, python3 and chromium on the PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cat > "$work/outage.toml" <<'TOML'
[[phase]]
name = "healthy"
for = "2s"

[[phase]]
name = "lossy"
for = "3s"
faults = [{ net = "drop 10% out udp", ramp-to = "drop 90% out udp", expect = "injected > 0" }]

[[phase]]
name = "doubled"
for = "2s"
faults = [{ net = "duplicate 30% out udp", expect = "injected > 0" }]
TOML
cat > "$work/sender.py" <<'PYTHON'
import socket, time
receiver, sender = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
while True:
    sender.sendto(b"x", receiver.getsockname())
    time.sleep(0.002)
PYTHON
cd "$work"
python3 sender.py &
sender=$!
fault play outage.toml --pid $sender --report report.html
kill $sender
chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update \
    --disable-sync --user-data-dir="$work/browser" --window-size=1000,1000 --screenshot="$here/report.png" \
    "file://$work/report.html"
