"""Three clients of a cache that fall through to the origin when it does not answer.

`cached.py ZONE CACHE-PORT ORIGIN-PORT REQUESTS`. Each client opens a pool of connections to Redis, one for each of its
requests, and begins when a line comes on stdin. Prints one JSON list: every request, and who answered it.
"""

import http.client
import json
import socket
import struct
import sys
import threading
import time

ZONE, CACHE, ORIGIN, REQUESTS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
CLIENTS, PATIENCE = 3, 0.5

samples = []


def connect():
    connection = socket.create_connection(("127.0.0.1", CACHE), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def cached(connection):
    """Counts a hit of this zone in Redis, which is work that can be seen there."""
    try:
        connection.sendall(f"INCR hits:{ZONE}\r\n".encode())
        return connection.recv(64).startswith(b":")
    except TimeoutError:
        # Gives up for good: after a mere close, the kernel would go on sending.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    finally:
        connection.close()


def origin():
    connection = http.client.HTTPConnection("127.0.0.1", ORIGIN, timeout=10)
    connection.request("GET", "/thing")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def client(pool):
    for connection in pool:
        began = time.monotonic_ns()
        if cached(connection):
            outcome = "cache"
        else:
            outcome = "origin" if origin() else "nobody"
        took = time.monotonic_ns() - began
        good = outcome == "cache"
        samples.append({"who": ZONE, "what": "", "at_ns": began, "took_ns": took, "outcome": outcome, "good": good})
        time.sleep(0.1)


pools = [[connect() for _ in range(REQUESTS)] for _ in range(CLIENTS)]
print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=client, args=(pool,)) for pool in pools]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(samples))
