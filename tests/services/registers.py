"""Clients of etcd that read and write a few registers through given members, and remember every operation.

`registers.py PATIENCE NAME=ADDRESS:PORT...`: the members, and after how many seconds a client gives up. It begins at
once and ends when a line comes on stdin. It prints one JSON object: `operations`, a list; `views`, whom each member took
for the leader, and in which term, whenever that changed; and `log`, for each member its own record of every revision.

`outcome` is `ok`; `fail`, for what surely had no effect; or `unknown`: a time-out, or an error that leaves open
whether the operation was, or will be, carried out. Times are of the monotonic clock, in nanoseconds.
"""

import base64
import http.client
import itertools
import json
import random
import sys
import threading
import time

PATIENCE = float(sys.argv[1])
MEMBERS = [word.partition("=")[::2] for word in sys.argv[2:]]
REGISTERS = ["x", "y", "z"]
# Names of the members by their numbers.
ids = {}
# Between the end of an operation and the next one of the same client.
REST = 0.7
# Clients of each member that ask for the truth, and those that take what the member has.
LINEARIZABLE, SERIALIZABLE = 3, 1

operations, views, over, numbers = [], [], threading.Event(), itertools.count(1)


def text(word):
    return base64.b64encode(str(word).encode()).decode()


def plain(word):
    return base64.b64decode(word).decode()


class Refused(Exception):
    """Nothing was asked of anybody."""


class Member:
    """A connection to one of them, made anew after each error."""

    def __init__(self, address):
        self.address, self.connection = address, None

    def ask(self, path, body, patience=PATIENCE):
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.address, timeout=patience)
                try:
                    self.connection.connect()
                except ConnectionRefusedError as error:
                    raise Refused from error
            self.connection.request("POST", path, json.dumps(body))
            answer = self.connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException, Refused):
            self.close()
            raise
        if answer.status != 200:
            raise RuntimeError(told.get("error", answer.status))
        return told

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


def found(told):
    """Value and revision of the first key of an answer."""
    for kv in told.get("kvs", []):
        return int(plain(kv["value"])), int(kv["mod_revision"])
    return 0, 0


def read(member, key, serializable):
    value, revision = found(member.ask("/v3/kv/range", {"key": text(key), "serializable": serializable}))
    return {"value": value, "revision": revision}


def write(member, key, value):
    told = member.ask("/v3/kv/put", {"key": text(key), "value": text(value)})
    return {"revision": int(told["header"]["revision"])}


def swap(member, key, old, value):
    """Writes if the register holds `old`; otherwise it is a read."""
    same = {"key": text(key), "target": "VALUE", "result": "EQUAL", "value": text(old)}
    put = {"requestPut": {"key": text(key), "value": text(value)}}
    body = {"compare": [same], "success": [put], "failure": [{"requestRange": {"key": text(key)}}]}
    told = member.ask("/v3/kv/txn", body)
    if told.get("succeeded"):
        return {"swapped": True, "revision": int(told["header"]["revision"])}
    seen, revision = found(told["responses"][0]["response_range"])
    return {"swapped": False, "value": seen, "revision": revision}


def remember(client, name, action, key, arguments, act):
    began = time.monotonic_ns()
    told, outcome, error = {}, "ok", ""
    try:
        told = act()
    except Refused:
        outcome, error = "fail", "refused"
    except TimeoutError:
        outcome, error = "unknown", "time-out"
    except (OSError, ValueError, http.client.HTTPException, RuntimeError) as problem:
        outcome, error = "unknown", str(problem) or type(problem).__name__
    ended = time.monotonic_ns()
    # A read that failed had no effect, whatever the reason.
    if outcome == "unknown" and action in ("read", "local read"):
        outcome = "fail"
    operation = {"client": client, "member": name, "action": action, "key": key, "invoke_ns": began, "complete_ns": ended}
    operations.append(operation | arguments | told | {"outcome": outcome, "error": error})
    return told


def truthful(client, name, address):
    member, chance, last = Member(address), random.Random(client), {}
    while not over.is_set():
        key, dice, value = chance.choice(REGISTERS), chance.random(), next(numbers)
        if dice < 0.4:
            told = remember(client, name, "read", key, {}, lambda: read(member, key, False))
        elif dice < 0.7:
            told = remember(client, name, "write", key, {"new": value}, lambda: write(member, key, value))
            last[key] = value
        else:
            old = last.get(key, 0)
            told = remember(
                client, name, "swap", key, {"old": old, "new": value}, lambda: swap(member, key, old, value)
            )
            last[key] = value
        last[key] = told.get("value", last.get(key, 0))
        over.wait(REST)


def local(client, name, address):
    member, chance = Member(address), random.Random(client)
    while not over.is_set():
        key = chance.choice(REGISTERS)
        remember(client, name, "local read", key, {}, lambda: read(member, key, True))
        over.wait(REST)


def look(name, address):
    """A member answers this by itself, whoever else it reaches."""
    member, last = Member(address), None
    while not over.is_set():
        try:
            told = member.ask("/v3/maintenance/status", {})
            view = {"member": name, "leader": told.get("leader", "0"), "term": int(told["raftTerm"])}
            ids[told["header"]["member_id"]] = name
            if view != last:
                views.append(view | {"at_ns": time.monotonic_ns()})
            last = view
        except (OSError, ValueError, http.client.HTTPException, RuntimeError, Refused):
            pass
        over.wait(0.4)


def log(address):
    """What the member itself holds: key, value and revision of every write there was."""
    revision = int(Member(address).ask("/v3/kv/range", {"key": text("x")}, 60)["header"]["revision"])
    connection = http.client.HTTPConnection(address, timeout=60)
    body = {"create_request": {"key": text("a"), "range_end": text("zz"), "start_revision": 1}}
    connection.request("POST", "/v3/watch", json.dumps(body))
    answer, events = connection.getresponse(), []
    while not events or events[-1][2] < revision:
        told = json.loads(answer.readline())["result"]
        for event in told.get("events", []):
            kv = event["kv"]
            events.append([plain(kv["key"]), int(plain(kv["value"])), int(kv["mod_revision"])])
    connection.close()
    return events


for register in REGISTERS:
    write(Member(MEMBERS[0][1]), register, 0)
kinds = [truthful] * LINEARIZABLE + [local] * SERIALIZABLE
work = [(kind, name, address) for name, address in MEMBERS for kind in kinds]
threads = [threading.Thread(target=kind, args=(number, *rest)) for number, (kind, *rest) in enumerate(work)]
threads += [threading.Thread(target=look, args=member) for member in MEMBERS]
for thread in threads:
    thread.start()
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
for view in views:
    view["leader"] = ids.get(view["leader"], "")
print(json.dumps({"operations": operations, "views": views, "log": {name: log(address) for name, address in MEMBERS}}))
