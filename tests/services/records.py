"""Billing, or inventory: keeps the numbers of orders in SQLite. `records.py PORT FILE`.

`POST /orders/N` makes a row for order N, if there is none; `GET /orders` lists them.
"""

import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, FILE = int(sys.argv[1]), sys.argv[2]


def run(statement, *values):
    connection = sqlite3.connect(FILE, timeout=10)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


run("create table orders(number integer primary key)")


class Records(BaseHTTPRequestHandler):
    def do_POST(self):
        run("insert or ignore into orders values (?)", int(self.path.rsplit("/", 1)[1]))
        self.answer([])

    def do_GET(self):
        self.answer([number for (number,) in run("select number from orders order by number")])

    def answer(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", PORT), Records)
print("ready", file=sys.stderr, flush=True)
server.serve_forever()
