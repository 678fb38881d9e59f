"""Faults from Python tests: the words of `fault`, as a context manager and as a pytest fixture.

    import fault

    with fault.inject(pid=server.pid, net=["drop 30% out tcp port 5432"], seed=7) as session:
        talk_to(server)
    assert session.report["rules"][0]["injected"] > 0

The controller is a process of its own, `fault inject --until-eof`: it heals when the block is left, however that comes, and
when this process is killed. $FAULT names the binary; without it, it is looked for on the PATH. Needs root and Python 3.8,
and nothing but the standard library.
"""

import json
import os
import subprocess
import threading

__all__ = ["Error", "Refused", "Session", "inject", "run"]

ACTIVE = "fault: active"


class Error(Exception):
    """Nothing is armed, or nothing is known of what was."""


class Refused(Error):
    """The controller refused, and armed nothing. `status`: 2 usage, 69 this kernel cannot do it, 77 not permitted."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def _options(net, disk, file, proc, exceptions, seed, lasting):
    options = []
    for name, values in (("--net", net), ("--disk", disk), ("--file", file), ("--proc", proc), ("--except", exceptions)):
        if isinstance(values, str):
            values = [values]
        for value in values:
            options += [name, value]
    if seed is not None:
        options += ["--seed", str(seed)]
    if lasting is not None:
        options += ["--for", lasting if isinstance(lasting, str) else f"{round(lasting * 1e9)}ns"]
    return options


def _binary():
    return os.environ.get("FAULT", "fault")


class Session:
    """Faults that are active until `heal`, the end of the `with` block, or the end of this process.

    `report` is the object that docs/reports.md describes, once healed; None before.
    """

    def __init__(self, arguments):
        self.report = None
        command = [_binary(), "inject", "--until-eof", "--json", "-", *arguments]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
            )
        except OSError as error:
            raise Error(f"cannot start {command[0]}: {error}; install it, or name it in $FAULT") from error
        said = []
        for line in self._process.stderr:
            said.append(line)
            if line.startswith(ACTIVE):
                break
        else:
            raise Refused(self._process.wait(), "".join(said).strip())
        # The pipe must not fill up.
        self._said = said
        self._listener = threading.Thread(target=lambda: said.extend(self._process.stderr), daemon=True)
        self._listener.start()

    @property
    def controller(self):
        """PID of the controller."""
        return self._process.pid

    def heal(self):
        """Heals, and returns the report. Once is enough; more do no harm."""
        if self.report is None:
            self._process.stdin.close()
            text = self._process.stdout.read()
            status = self._process.wait()
            self._listener.join()
            try:
                self.report = json.loads(text)
            except ValueError:
                said = "".join(self._said).strip()
                raise Error(f"the controller ended with {status} and no report: {said}") from None
        return self.report

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.heal()
        except Error:
            # What went wrong inside of the block is the better story.
            if kind is None:
                raise


def inject(
    *,
    pid=(),
    cgroup=(),
    container=(),
    unit=(),
    comm=(),
    net=(),
    disk=(),
    file=(),
    proc=(),
    exceptions=(),
    seed=None,
    lasting=None,
    only=False,
):
    """Arms faults for who already runs, and returns when they are active, as a `Session`.

    Targets are one or several; `only` leaves descendants alone. `lasting` is a number of seconds, or text: "1m30s".
    Raises `Refused` when the controller will not; then nothing is armed.
    """
    targets = []
    for name, values in (("pid", pid), ("cgroup", cgroup), ("container", container), ("unit", unit), ("comm", comm)):
        for value in [values] if isinstance(values, (str, int, os.PathLike)) else values:
            targets += [f"--{name}", str(value)]
    if only:
        targets.append("--only")
    return Session(targets + _options(net, disk, file, proc, exceptions, seed, lasting))


def run(command, *, net=(), disk=(), file=(), proc=(), exceptions=(), seed=None, lasting=None, **popen):
    """`subprocess.run` of a command under faults, in a cgroup of its own: `fault run`. More arguments go to it."""
    options = _options(net, disk, file, proc, exceptions, seed, lasting)
    return subprocess.run([_binary(), "run", "--quiet", *options, "--", *command], **popen)


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def faults():
        """`inject`, whose sessions end with the test: `def test_retry(faults): faults(pid=…, net="drop 30%")`.

        Import it into `conftest.py`: `from fault import faults`.
        """
        sessions = []

        def arm(**arguments):
            sessions.append(inject(**arguments))
            return sessions[-1]

        yield arm
        for session in reversed(sessions):
            session.heal()
