"""holdfast-loadgen: its command line, its JSON lines as they come, its exit code."""

import json
import os
import selectors
import signal
import subprocess
import time

from machine import Failure
from server import KID

OK, BROKEN, UNAVAILABLE, VOID = 0, 65, 69, 80


class Load:
    """
    One run of the load generator against a server. Options are its flags: clients=1000,
    one_way=True. Steps as it has them: "connect,pace:5000:10".
    """

    def __init__(self, processes, programs, server, steps, cpus=None, below=False, **options):
        self._processes = processes
        self._server = server
        self._buffer = b""
        self._lines = []
        self._heard_at = time.monotonic()
        self.events = []
        self.folder = server.folder
        os.makedirs(self.folder, exist_ok=True)
        options = {"server": f"127.0.0.1:{server.port}", "server_name": "localhost",
                   "ca": server.identity.ca, "login_keys": server.identity.keys, "kid": KID,
                   **options}
        command = [programs.loadgen, "run", steps, "--json"]
        for key, value in options.items():
            flag = "--" + key.replace("_", "-")
            if value is True:
                command.append(flag)
            elif value is not None and value is not False:
                command += [flag, str(value)]
        self._log = os.path.join(self.folder, "loadgen.log")
        with open(self._log, "ab") as log:
            self.process = processes.start(command, cpus=cpus, below=below,
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                           stderr=log)
        self._pipe = self.process.stdout.fileno()
        os.set_blocking(self._pipe, False)

    def _read(self, wait_s):
        """Takes in what it said. False: it says no more."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            if not selector.select(max(wait_s, 0)):
                return True
        chunk = os.read(self._pipe, 65536)
        self._heard_at = time.monotonic()
        self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if line.strip():
                self._lines.append(json.loads(line))
        return bool(chunk)

    def next(self, timeout_s):
        """The next event, as a dictionary; None: it has ended."""
        end = time.monotonic() + timeout_s
        while not self._lines:
            left = end - time.monotonic()
            if left <= 0:
                self.kill()
                raise Failure(f"the load generator said nothing for {timeout_s:.0f} s")
            if not self._read(min(left, 1)):
                return None
        event = self._lines.pop(0)
        self.events.append(event)
        return event

    def look(self, wait_s):
        """The next event if it comes within so long, else None. An end fails."""
        if not self._lines and not self._read(wait_s):
            raise Failure(f"the load generator ended early: {self.last_words()}")
        if not self._lines:
            return None
        return self.next(1)

    def silent_s(self):
        """How long it has said nothing."""
        return time.monotonic() - self._heard_at

    def until(self, event, timeout_s, step=None):
        """
        Reads up to that event (of a step whose name begins so), and returns it. An earlier end
        fails, with its own last words.
        """
        end = time.monotonic() + timeout_s
        while True:
            got = self.next(max(end - time.monotonic(), 0.1))
            if got is None:
                raise Failure(f"the load generator ended early: {self.last_words()}")
            if got["event"] == event and (step is None or got.get("step", "").startswith(step)):
                return got

    def drain(self):
        """Takes in what it said so far."""
        while self._read(0) and self._lines:
            self.events.extend(self._lines)
            self._lines.clear()

    def finish(self, timeout_s):
        """Reads to the end; the exit code."""
        end = time.monotonic() + timeout_s
        while self.next(max(end - time.monotonic(), 0.1)) is not None:
            pass
        self.process.wait(60)
        self._processes.kill(self.process)
        self.process.stdout.close()
        return self.process.returncode

    def all(self, event):
        """All events of that name so far."""
        return [one for one in self.events if one["event"] == event]

    def release(self):
        """Ends a step `hold`."""
        self.process.send_signal(signal.SIGUSR1)

    def kill(self):
        self._processes.kill(self.process)
        self.process.stdout.close()

    def last_words(self):
        """Its last line; that of the server too, if that has died."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        words = lines[-1] if lines else "it said nothing"
        if self._server.process is not None and self._server.process.poll() is not None:
            words += f" (holdfastd has died: {self._server.last_words()})"
        return words
