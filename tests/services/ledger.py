"""A ledger over SQLite or PostgreSQL that does what it is told on stdin, and times it.

`ledger.py sqlite FILE` or `ledger.py postgres SOCKET-DIRECTORY`. A line is `read ROW` or `write ROW`.
It prints one JSON list: every read and write, how long it took and how it ended.
"""

import json
import sqlite3
import sys
import time

KIND, PLACE = sys.argv[1], sys.argv[2]


class Sqlite:
    """Opens the file for each request, as programs do that live as long as a request."""

    errors = sqlite3.Error

    def run(self, statement, values):
        connection = sqlite3.connect(PLACE, isolation_level=None)
        try:
            connection.execute("pragma synchronous=full")
            return connection.execute(statement.replace("%s", "?"), values).fetchall()
        finally:
            connection.close()


class Postgres:
    """One connection, each statement a transaction."""

    def __init__(self):
        import psycopg2

        self.errors = psycopg2.Error
        self.connection = psycopg2.connect(host=PLACE, user="postgres", dbname="postgres")
        self.connection.autocommit = True

    def run(self, statement, values):
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


def row(number):
    return (number, f"row-{number:06} " + "x" * 1400)


def ask(database, verb, number):
    if verb == "write":
        database.run("insert into ledger values (%s, %s)", row(number))
        return "ok"
    found = database.run("select s from ledger where n = %s", (number,))
    return "ok" if found == [(row(number)[1],)] else "wrong"


database = Sqlite() if KIND == "sqlite" else Postgres()
done = []
for line in sys.stdin:
    verb, number = line.split()[0], int(line.split()[1])
    began = time.monotonic_ns()
    try:
        outcome = ask(database, verb, number)
    except database.errors as error:
        outcome = str(error).split("\n")[0].strip()
    took = time.monotonic_ns() - began
    good = outcome == "ok"
    done.append({"who": verb, "what": str(number), "at_ns": began, "took_ns": took, "outcome": outcome, "good": good})
print(json.dumps(done))
