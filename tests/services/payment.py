"""A payment service over PostgreSQL: `POST /charge` with {"order": N, "key": KEY or null} makes one row.

`payment.py PORT SOCKET-DIRECTORY`. A key that was used before makes no second row; without one, every request is
a charge of its own.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

PORT, DIRECTORY = int(sys.argv[1]), sys.argv[2]

database = psycopg2.connect(host=DIRECTORY, user="postgres", dbname="postgres")
database.autocommit = True
one_at_a_time = threading.Lock()
with database.cursor() as cursor:
    cursor.execute("create table if not exists charges(id serial, order_number integer, key text unique)")


class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with one_at_a_time, database.cursor() as cursor:
            cursor.execute(
                "insert into charges(order_number, key) values (%s, %s) on conflict (key) do nothing",
                (request["order"], request["key"]),
            )
        body = b"charged\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Shoppers come at the same time.
    request_queue_size = 128


server = Server(("127.0.0.1", PORT), Service)
print("ready", file=sys.stderr, flush=True)
server.serve_forever()
