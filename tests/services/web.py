"""Takes orders: bills them first, then has the inventory put the thing aside. `web.py PORT BILLING-PORT INVENTORY-PORT`.

`POST /buy/N` is 200 when both are done, and 502 when the bill is written and the inventory did not answer.
`POST /reconcile` has the inventory put aside whatever was billed and is not there.
"""

import http.client
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, BILLING, INVENTORY = (int(port) for port in sys.argv[1:4])
PATIENCE = 1


def call(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def buy(order):
    call(BILLING, "POST", f"/orders/{order}")
    try:
        call(INVENTORY, "POST", f"/orders/{order}")
    except OSError:
        return 502
    return 200


def reconcile():
    billed, put_aside = (set(call(port, "GET", "/orders")) for port in (BILLING, INVENTORY))
    for order in billed - put_aside:
        call(INVENTORY, "POST", f"/orders/{order}")
    return 200


class Web(BaseHTTPRequestHandler):
    def do_POST(self):
        verb, *order = self.path.strip("/").split("/")
        self.send_response(buy(int(order[0])) if verb == "buy" else reconcile())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", PORT), Web)
print("ready", file=sys.stderr, flush=True)
server.serve_forever()
