"""A page put together from several services, all asked at once.

`page.py PORT PATIENCE SERVICE-PORT…`: a service that has not answered within PATIENCE seconds (0: for ever) is left out.
"""

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, PATIENCE, PARTS = int(sys.argv[1]), float(sys.argv[2]) or None, [int(port) for port in sys.argv[3:]]

workers = ThreadPoolExecutor(64)


def part(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/part")
        return json.loads(connection.getresponse().read())["service"]
    except TimeoutError:
        return None
    finally:
        connection.close()


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = list(workers.map(part, PARTS))
        body = json.dumps({"parts": parts}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", PORT), Page)
print("ready", file=sys.stderr, flush=True)
server.serve_forever()
