"""A holdfastd of our own: keys and certificate, start, kill, restart, its metrics."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import proc
from machine import Failure

START_S = 120  # recovery included
STOP_S = 60
KID = "measure"


def free_port(first, last):
    """One below the ports that the kernel gives to clients, so that none of ours takes it."""
    for port in range(first, last):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failure(f"no free port between {first} and {last}")


def parse_metrics(text):
    """
    {name: value, summed over all labels but those named}, from Prometheus's text format; and
    {name{labels}: value} of each line beside it, without the label core.
    """
    values = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, value = line.rpartition(" ")
        bare, brace, labels = name.partition("{")
        values[bare] = values.get(bare, 0.0) + float(value)
        kept = [label for label in labels.rstrip("}").split(",")
                if label and not label.startswith("core=")]
        if brace and kept:
            full = f"{bare}{{{','.join(kept)}}}"
            values[full] = values.get(full, 0.0) + float(value)
    return values


class Identity:
    """What server and clients need to know of each other, in one folder; made once."""

    def __init__(self, programs, folder):
        self.keys = os.path.join(folder, "login-keys.jwks")
        self.ca = os.path.join(folder, "ca.pem")
        self.cert = os.path.join(folder, "server.pem")
        self.cert_key = os.path.join(folder, "server-key.pem")
        self._token = programs.token
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(self.keys):
            self._run("keys", "new", "--alg", "HS256", "--kid", KID, "--out", self.keys)
        if not os.path.exists(self.cert):
            self._run("cert", "--ca-dir", folder, "--name", "localhost", "--name", "127.0.0.1")

    def _run(self, *arguments):
        result = subprocess.run([self._token, *arguments], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode:
            raise Failure(f"holdfast-token {arguments[0]}: {result.stdout.strip()}")
        return result.stdout.strip()

    def token(self, user, device, ttl="1h"):
        return self._run("issue", "--key", self.keys, "--kid", KID, "--user", str(user),
                         "--device", str(device), "--ttl", ttl)


class Programs:
    """The programs of one build."""

    def __init__(self, build):
        self.build = build
        self.server = os.path.join(build, "core", "holdfastd")
        self.token = os.path.join(build, "core", "holdfast-token")
        self.loadgen = os.path.join(build, "loadgen", "holdfast-loadgen")
        self.client = os.path.join(build, "client", "holdfast")

    def missing(self, *names):
        """Those of the named programs that this build doesn't have."""
        return [name for name in names if not os.path.exists(getattr(self, name))]


class Server:
    """
    One data directory, and at most one process that serves it. Settings are keys of the
    configuration: max_connections=1000.
    """

    def __init__(self, processes, programs, folder, identity=None, cpus=None, **settings):
        self._processes = processes
        self._programs = programs
        self._cpus = cpus
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.log = os.path.join(folder, "holdfastd.log")
        os.makedirs(folder, exist_ok=True)
        self.identity = identity or Identity(programs, os.path.join(folder, "identity"))
        self.port = free_port(17443, 17943)
        self.admin_port = free_port(17944, 18443)
        self.settings = dict(settings)
        self.process = None

    def command(self):
        settings = {
            "listen": f"127.0.0.1:{self.port}", "admin_listen": f"127.0.0.1:{self.admin_port}",
            "data_dir": self.data, "tls_cert": self.identity.cert,
            "tls_key": self.identity.cert_key, "login_keys": self.identity.keys, **self.settings}
        return [self._programs.server] + [f"--{key.replace('_', '-')}={value}"
                                          for key, value in settings.items()]

    @property
    def pid(self):
        return self.process.pid

    def launch(self):
        """Starts the process and doesn't wait."""
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("HOLDFAST_")}
        with open(self.log, "ab") as log:
            self.process = self._processes.start(self.command(), cpus=self._cpus, stdout=log,
                                                 stderr=subprocess.STDOUT, env=environment,
                                                 stdin=subprocess.DEVNULL)

    def start(self, wait_s=START_S):
        """Starts it; returns the seconds until it was ready."""
        began = time.monotonic()
        self.launch()
        while not self.is_ready():
            if self.process.poll() is not None:
                raise Failure(f"holdfastd ended with {self.process.returncode}: {self.last_words()}")
            if time.monotonic() - began > wait_s:
                raise Failure(f"holdfastd isn't ready after {wait_s} s: {self.last_words()}")
            time.sleep(0.01)
        return time.monotonic() - began

    def is_ready(self):
        try:
            return self._get("/ready", 2)[0] == 200
        except OSError:
            return False

    def _get(self, path, timeout_s=10):
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def metrics(self):
        status, text = self._get("/metrics")
        if status != 200:
            raise Failure(f"/metrics answers {status}")
        return parse_metrics(text)

    def thread_cpu_ns(self):
        return proc.thread_cpu_ns(self.pid)

    def kill(self):
        """kill -9."""
        self._processes.kill(self.process)

    def stop(self):
        """SIGTERM; the exit code."""
        return self._processes.kill(self.process, signal.SIGTERM, STOP_S)

    def last_words(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        return lines[-1] if lines else "it said nothing"

    def remove(self):
        """Kills it if it runs, and removes its folder."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
