"""Commits rows to a PostgreSQL, and reads them, each on a connection that is made again when it is lost.

`commits.py DIRECTORY`: that of its socket. It works until a line comes on stdin, and prints one JSON list: every request,
how long it took and how it ended. A write that was sent has the number of its row.
"""

import json
import sys
import threading
import time

import psycopg2

DIRECTORY = sys.argv[1]
WRITES, READS = 0.5, 0.15

done, acknowledged, over = [], [], threading.Event()


class Client:
    connection = None

    def run(self, statement, values=()):
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall()
        except psycopg2.Error:
            self.connection.close()
            self.connection = None
            raise

    def connect(self):
        if not self.connection:
            self.connection = psycopg2.connect(host=DIRECTORY, user="postgres", dbname="postgres")
            self.connection.autocommit = True


def first_line(error):
    line = str(error).strip().split("\n")[0]
    # Of one that did not get a connection: without the name of the socket.
    return line.split(" failed: ")[-1].removeprefix("FATAL:").strip()


def request(client, who, row, act):
    began, sent = time.monotonic_ns(), False
    try:
        client.connect()
        sent = True
        outcome = act()
    except psycopg2.Error as error:
        outcome = first_line(error)
    took, good = time.monotonic_ns() - began, outcome == "ok"
    what = str(row) if sent and row is not None else ""
    done.append({"who": who, "what": what, "at_ns": began, "took_ns": took, "outcome": outcome, "good": good})
    return good


def writer(client):
    row = 0
    while not over.wait(WRITES):
        row += 1

        def insert():
            client.run("insert into ledger values (%s, %s) returning n", (row, "x" * 100))
            return "ok"

        if request(client, "write", row, insert):
            acknowledged.append(row)


def reader(client):
    while not over.wait(READS):
        known = list(acknowledged)

        def select():
            found = {row for (row,) in client.run("select n from ledger")}
            return "ok" if found.issuperset(known) else "rows missing"

        request(client, "read", None, select)


clients = [Client(), Client()]
for client in clients:
    client.connect()
print("ready", file=sys.stderr, flush=True)
threads = [threading.Thread(target=act, args=(client,)) for act, client in zip((writer, reader), clients)]
for thread in threads:
    thread.start()
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(done))
