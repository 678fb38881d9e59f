"""One small service of a shop: answers every GET with its name. `shop.py NAME PORT`."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, PORT = sys.argv[1], int(sys.argv[2])


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"service": NAME, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", PORT), Service)
print("ready", file=sys.stderr, flush=True)
server.serve_forever()
