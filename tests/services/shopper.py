"""Pays orders, each by a thread of its own, and tries again after a time-out.

`shopper.py PORT PATIENCE FIRST COUNT`: FIRST is the number of the first order. Even orders carry an idempotency
key, odd ones do not. It begins when a line comes on stdin, and prints one JSON list: every try, with its order.
"""

import http.client
import json
import socket
import struct
import sys
import threading
import time

PORT, PATIENCE, FIRST, COUNT = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
TRIES = 12
# Between two tries, and between two orders: nobody is helped by a storm of retries.
REST, PACE = 0.5, 0.25

tries = []


def charge(order, key):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE)
    try:
        connection.request("POST", "/charge", json.dumps({"order": order, "key": key}))
        return str(connection.getresponse().status)
    except TimeoutError:
        if connection.sock:
            # Gives up for good: after a mere close, the kernel would go on sending the request.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "timed out"
    finally:
        connection.close()


def pay(order):
    key = f"order-{order}" if order % 2 == 0 else None
    for _ in range(TRIES):
        began = time.monotonic_ns()
        outcome = charge(order, key)
        tries.append(
            {
                "who": "with a key" if key else "without a key",
                "what": str(order),
                "at_ns": began,
                "took_ns": time.monotonic_ns() - began,
                "outcome": outcome,
                "good": outcome == "200",
            }
        )
        if outcome == "200":
            return
        time.sleep(REST)


print("ready", file=sys.stderr, flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=pay, args=(order,)) for order in range(FIRST, FIRST + COUNT)]
for thread in threads:
    thread.start()
    time.sleep(PACE)
for thread in threads:
    thread.join()
print(json.dumps(tries))
