"""The limit probes: the least code that can do each job on this machine, for ratios.

--limits DIR names their sources. They are copied to build/limits and built there by their own
build.sh, which fetches and builds what it needs the first time (a minute or two). Without it there
are no such ratios.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile

from machine import EX_USAGE, Failure

BUILD_S, RUN_S = 1200, 300


def parse_line(line):
    """("RELAY", {"store": "raw", ..., "": [words without =]}) of a line of a probe."""
    words = line.split()
    fields = {"": []}
    for word in words[1:]:
        key, separator, value = word.partition("=")
        if not separator:
            fields[""].append(word)
            continue
        try:
            fields[key] = float(value.rstrip("%"))
        except ValueError:
            fields[key] = value
    return (words[0] if words else ""), fields


def find(text, probe, /, **wanted):
    """The fields of the first line of that kind with these values."""
    for line in text.splitlines():
        name, fields = parse_line(line)
        if name == probe and all(fields.get(key) == value for key, value in wanted.items()):
            return fields
    raise Failure(f"a probe said no {probe} with {wanted}:\n{text[-2000:]}")


class Limits:
    """The probes, built when the first is run."""

    def __init__(self, source, root, processes, say):
        self._source = os.path.abspath(source)
        self._folder = os.path.join(root, "build", "limits")
        self._processes = processes
        self._say = say
        self._built = False
        if not os.path.exists(os.path.join(self._source, "build.sh")):
            raise Failure(f"--limits {source}: no build.sh there", EX_USAGE)

    def _build(self):
        if self._built:
            return
        os.makedirs(self._folder, exist_ok=True)
        for name in os.listdir(self._source):
            path = os.path.join(self._source, name)
            if os.path.isfile(path) and not self._is_copied(path, name):
                target = os.path.join(self._folder, name)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(target)
                shutil.copy(path, target)
        self._say("building the probes in build/limits (minutes, the first time)")
        with open(os.path.join(self._folder, "build.log"), "w", encoding="utf-8") as log:
            process = self._processes.start(["bash", "./build.sh"], cwd=self._folder, stdout=log,
                                            stderr=subprocess.STDOUT)
            self._wait(process, BUILD_S)
        if process.returncode:
            raise Failure("the probes don't build: see build/limits/build.log")
        self._built = True

    def _is_copied(self, path, name):
        """Its copy is the same: left as it is, so that what is built from it stays newer."""
        copy = os.path.join(self._folder, name)
        if not os.path.exists(copy):
            return False
        with open(path, "rb") as one, open(copy, "rb") as other:
            return one.read() == other.read()

    def _wait(self, process, seconds):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"a probe ran for more than {seconds} s") from None
        finally:
            self._processes.kill(process)

    def _run(self, *command, until=None):
        """
        The output of a probe; with `until`, that up to the first line that holds it: what follows
        isn't needed.
        """
        self._build()
        data = tempfile.mkdtemp(prefix="data.", dir=self._folder)
        command = [word.replace("{data}", data) for word in command]
        try:
            process = self._processes.start(
                [os.path.join(self._folder, "build", command[0]), *command[1:]], cwd=self._folder,
                env={**os.environ, "DATA": data}, stdout=subprocess.PIPE, text=True)
            lines = []
            for line in process.stdout:
                lines.append(line)
                if until is not None and until in line:
                    break
            process.stdout.close()
            if until is not None:
                self._processes.kill(process)
            else:
                self._wait(process, RUN_S)
                if process.returncode:
                    raise Failure(f"probe {' '.join(command)} failed: {process.returncode}")
            return "".join(lines)
        finally:
            shutil.rmtree(data, ignore_errors=True)

    def relay(self, connections, window, seconds):
        """(messages/s, server CPU ns each) of the least server that writes a raw log."""
        text = self._run("relay", "raw", str(connections), str(window), str(seconds))
        fields = find(text, "RELAY", store="raw")
        return fields["msgs_per_s"], fields["server_cpu_ns"]

    def idle(self, connections):
        """(server's end, client's end): kernel bytes of a connection that waits in a poll."""
        fields = find(self._run("idle", "mspoll", str(connections)), "IDLE")
        return fields["server_used"], fields["both_ends_used"] - fields["server_used"]

    def durable_write_us(self):
        """p50 of one durable write of 4 KiB over zeros, with nothing else on its way to the disk."""
        os.sync()
        runs = [self._run("store", "{data}", "1000", until="what=overwrite-4K") for _ in range(3)]
        return min(find(text, "SYNC", what="overwrite-4K")["p50_us"] for text in runs)

    def handshakes(self):
        """(full, resumed) of the server's side, a second of CPU."""
        text = self._run("handshake", "300", until="kind=resume group=p256")
        full = find(text, "HANDSHAKE", lib="mbedtls", kind="full", group="p256", tickets=1)
        resumed = find(text, "HANDSHAKE", lib="mbedtls", kind="resume", group="p256")
        return full["server_per_s"], resumed["server_per_s"]
