"""Writes to a primary, reads from its replica, and tells how old the answers are.

`readers.py PRIMARY REPLICA SECONDS`: socket directories. It begins when a line comes on stdin. It prints one JSON object:
`samples`, and `stream`, a list of moments with the bytes of log that the primary had written and the replica received.
"""

import json
import sys
import threading
import time

import psycopg2

PRIMARY, REPLICA, SECONDS = sys.argv[1], sys.argv[2], float(sys.argv[3])
# Sixteen rows of this eight times a second are a little less than 200 KiB of log a second.
FILLING = "x" * 1400
ROWS, PAUSE = 16, 0.125

samples, stream, committed = [], [], {}


def connect(directory):
    connection = psycopg2.connect(host=directory, user="postgres", dbname="postgres")
    connection.autocommit = True
    return connection.cursor()


def timed(who, act):
    began = time.monotonic_ns()
    try:
        outcome = act()
    except psycopg2.Error as error:
        outcome = str(error).strip()
    took = time.monotonic_ns() - began
    good = outcome == "ok"
    samples.append({"who": who, "what": "", "at_ns": began, "took_ns": took, "outcome": outcome, "good": good})
    return began + took


def write(cursor, number):
    rows = [(number, FILLING)] * ROWS
    cursor.execute("insert into news values " + ", ".join(["(%s, %s)"] * ROWS), tuple(sum(rows, ())))
    return "ok"


def writer(cursor, first):
    number, end = first, time.monotonic() + SECONDS
    while time.monotonic() < end:
        number += 1
        committed[number] = timed("write to the primary", lambda: write(cursor, number))
        time.sleep(PAUSE)


def reader(primary, replica):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        seen = []

        def read():
            replica.execute("select max(n), pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint from news")
            seen.extend(replica.fetchone())
            return "ok"

        # What had been acknowledged before the question was asked.
        newest = max(committed, default=0)
        now = timed("read from the replica", read)
        if seen and newest:
            missing = [moment for number, moment in list(committed.items()) if seen[0] < number <= newest]
            age = now - min(missing) if missing else 0
            outcome = "stale" if missing else "current"
            samples.append(
                {
                    "who": "age of the answer",
                    "what": "",
                    "at_ns": now,
                    "took_ns": max(age, 1_000_000),
                    "outcome": outcome,
                    "good": not missing,
                }
            )
        primary.execute("select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint")
        stream.append({"at_ns": time.monotonic_ns(), "written": primary.fetchone()[0], "received": seen[1] if seen else 0})
        time.sleep(0.2)


cursors = [connect(PRIMARY), connect(PRIMARY), connect(REPLICA)]
cursors[0].execute("create table if not exists news(n integer, s text)")
cursors[0].execute("create index if not exists news_n on news(n)")
cursors[0].execute("select coalesce(max(n), 0) from news")
first = cursors[0].fetchone()[0]
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
threads = [
    threading.Thread(target=writer, args=(cursors[0], first)),
    threading.Thread(target=reader, args=(cursors[1], cursors[2])),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"samples": samples, "stream": stream}))
