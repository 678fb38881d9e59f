#!/bin/sh
# Makes top.svg beside this file: two sessions, the live view in a terminal of 80×24, and what is on it. As root, with `fault`,
# python3, ping and tmux on the PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
terminal() { tmux -S "$work/tmux" -f /dev/null "$@"; }
started=
trap 'terminal kill-server || true; kill $started || true; wait; rm -r "$work"' EXIT
export LC_ALL=C.UTF-8
cat > "$work/sender.py" <<'PYTHON'
import socket, time
receiver, sender = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
begun = time.monotonic()
while True:
    sender.sendto(b"x" * 200, receiver.getsockname())
    # Busier and less busy, every eight seconds.
    time.sleep(0.002 if (time.monotonic() - begun) % 8 < 4 else 0.006)
PYTHON
python3 "$work/sender.py" & sender=$!
fault inject --pid $sender --net 'drop 10% out udp' --net 'duplicate 30% in udp' --seed 7 2> /dev/null & first=$!
fault run --net 'drop 5% out icmp' --for 10m -- ping -q -i 0.1 127.0.0.1 > /dev/null 2>&1 & second=$!
started="$sender $first $second"
terminal new-session -d -x 80 -y 24 'fault top'
sleep 20
terminal send-keys Down
sleep 2.5
terminal capture-pane -e -N -p > "$work/screen"
python3 - "$work/screen" > "$here/top.svg" <<'PYTHON'
import re, sys
from html import escape
WIDE, HIGH, FONT = 8.4, 17, 14
COLOURS = {31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 36: "#56b6c2"}
lines = open(sys.argv[1], encoding="utf-8").read().split("\n")
width, height = 80 * WIDE + 20, 24 * HIGH + 20
print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
      f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}">')
print('<rect width="100%" height="100%" rx="6" fill="#1e222a"/>')
bold = dim = reverse = False
colour = None
for row, line in enumerate(lines[:24]):
    column, y = 0, 10 + row * HIGH
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        code = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if code:
            numbers = [int(word or 0) for word in code[1].split(";")]
            if numbers[:2] == [38, 5]:
                numbers = [30 + numbers[2]]
            for number in numbers:
                if number == 0:
                    bold = dim = reverse = False
                    colour = None
                elif number == 1: bold = True
                elif number == 2: dim = True
                elif number == 22: bold = dim = False
                elif number == 7: reverse = True
                elif number == 27: reverse = False
                elif number == 39: colour = None
                elif number in COLOURS: colour = COLOURS[number]
            continue
        if not piece:
            continue
        x, wide = 10 + column * WIDE, len(piece) * WIDE
        column += len(piece)
        ink = colour or ("#7f848e" if dim else "#d7dae0")
        if reverse:
            print(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{HIGH}" fill="{ink}"/>')
            ink = "#1e222a"
        if piece.strip():
            weight = ' font-weight="bold"' if bold else ""
            print(f'<text x="{x:.1f}" y="{y + FONT - 1}" textLength="{wide:.1f}" lengthAdjust="spacingAndGlyphs" '
                  f'xml:space="preserve" fill="{ink}"{weight}>{escape(piece)}</text>')
print("</svg>")
PYTHON
