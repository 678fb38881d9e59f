"""Partial failure for chosen processes, from Python: a client of `fault serve`. Standard library only.

    with fault_service.inject(pid=4711, net=["drop 10%"]) as session:
        ...
        print(session.get()["rules"][0]["injected"])
    print(session.report["rules"])

The session is healed at the end of the block, and also when this process dies: its connection is the lease.
With pytest: `from fault_service import faults`, then `def test_x(faults): faults(pid=..., net=["drop 10%"])`.
"""

import http.client
import json
import os
import socket

SOCKET = os.environ.get("FAULT_SOCKET", "/run/fault/fault.sock")


class FaultError(Exception):
    """The service refused: `status`, `code` for programs, a sentence, and what to do `next`."""

    def __init__(self, status, error):
        super().__init__(f"{error['message']} ({error['next']})")
        self.status = status
        self.code = error["code"]
        self.next = error["next"]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def _ask(connection, method, path, body=None):
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    value = json.loads(data) if data else None
    if answer.status >= 400:
        raise FaultError(answer.status, value["error"])
    return value


def _list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


class Session:
    """An active session. `report` is there when it has been healed."""

    def __init__(self, socket_path, request):
        self.report = None
        self._path = socket_path
        # This connection is the lease: nothing else must close it.
        self._lease = _Connection(socket_path)
        self.id = _ask(self._lease, "POST", "/v1/sessions", request)["id"]

    def _ask(self, method, tail="", body=None):
        connection = _Connection(self._path)
        try:
            return _ask(connection, method, f"/v1/sessions/{self.id}{tail}", body)
        finally:
            connection.close()

    def get(self):
        """What it does at the moment, with its counters."""
        return self._ask("GET")

    def change(self, net=(), disk=(), file=(), proc=(), **more):
        """Other faults on the same target. When they are refused, the old ones stay in force."""
        faults = {"net": _list(net), "disk": _list(disk), "file": _list(file), "proc": _list(proc)}
        return self._ask("PUT", "/faults", {**faults, **more})

    def heal(self):
        """Ends it and returns the report, as of `fault --json`."""
        if self.report is None:
            try:
                self.report = self._ask("DELETE")
            finally:
                self._lease.close()
        return self.report

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()


def inject(socket_path=None, **request):
    """Injects faults. Fields are those of POST /v1/sessions; a single value may stand for a list of one."""
    several = ("pid", "cgroup", "container", "unit", "comm", "net", "disk", "file", "proc", "except")
    request = {name.rstrip("_"): value for name, value in request.items()}
    request = {name: _list(value) if name in several else value for name, value in request.items()}
    request.setdefault("lease", "connection")
    return Session(socket_path or SOCKET, request)


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def faults():
        """`faults(**request)` injects as `inject` does; all is healed at the end of the test."""
        sessions = []

        def start(**request):
            sessions.append(inject(**request))
            return sessions[-1]

        yield start
        for session in reversed(sessions):
            session.heal()
