"""Clients of ZooKeeper servers, and a check of each server's health.

`znodes.py [--users NAME=ADDRESS …] [--checks NAME=ADDRESS …] SECONDS PATIENCE NODES`: each server of `--users` has two
clients, one that writes and one that reads, each a session with that server alone. There are NODES nodes of 150 kB, made
if they are not there; all are read and written to by turns. It begins when a line comes on stdin, and prints one JSON
list: every operation.
"""

import argparse
import json
import socket
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

PORT, SIZE, PAUSE = 2181, 150_000, 0.25
# How long a client may take to have its session, on an emulated machine.
WELCOME = 120

parser = argparse.ArgumentParser()
parser.add_argument("--users", nargs="*", default=[])
parser.add_argument("--checks", nargs="*", default=[])
parser.add_argument("seconds", type=float)
parser.add_argument("patience", type=float)
parser.add_argument("nodes", type=int)
asked = parser.parse_args()

samples = []


def timed(who, what, act):
    began = time.monotonic_ns()
    try:
        outcome, good = act()
    except (KazooTimeoutError, TimeoutError):
        outcome, good = "timed out", False
    except (KazooException, OSError) as error:
        outcome, good = type(error).__name__, False
    took = time.monotonic_ns() - began
    samples.append({"who": who, "what": what, "at_ns": began, "took_ns": took, "outcome": outcome, "good": good})


def node(number):
    return f"/data/{number % asked.nodes:03}"


def write(client, path):
    client.create_async(f"{path}/entry-", b"x" * 100, sequence=True).get(timeout=asked.patience)
    return "ok", True


def read(client, path):
    data, _ = client.get_async(path).get(timeout=asked.patience)
    return ("ok", True) if len(data) == SIZE else ("other data", False)


def word(address, letters):
    """One of ZooKeeper's four-letter words."""
    with socket.create_connection((address, PORT), timeout=asked.patience) as connection:
        connection.sendall(letters.encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer.decode()


def check(address):
    health, state = word(address, "ruok"), word(address, "srvr")
    modes = [line.split()[1] for line in state.splitlines() if line.startswith("Mode: ")]
    return f"{health}, {modes[0] if modes else 'not serving'}", health == "imok" and bool(modes)


def user(who, act, client):
    number = 0
    while time.monotonic() < end:
        timed(who, node(number), lambda: act(client, node(number)))
        number += 1
        time.sleep(PAUSE)


def checker(who, address):
    while time.monotonic() < end:
        timed(who, "", lambda: check(address))
        time.sleep(1)


def session(address):
    client = KazooClient(hosts=f"{address}:{PORT}", timeout=30)
    client.start(timeout=WELCOME)
    return client


clients, threads = [], []
for one in asked.users:
    name, address = one.split("=")
    for act, verb in [(write, "write through"), (read, "read from")]:
        clients.append(session(address))
        threads.append(threading.Thread(target=user, args=(f"{verb} the {name}", act, clients[-1])))
for one in asked.checks:
    name, address = one.split("=")
    threads.append(threading.Thread(target=checker, args=(f"health check of the {name}", address)))
if clients:
    clients[0].ensure_path("/data")
    there = clients[0].get_children("/data")
    for number in range(len(there), asked.nodes):
        clients[0].create(node(number), b"x" * SIZE)
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
end = time.monotonic() + asked.seconds
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(samples))
for client in clients:
    client.stop()
