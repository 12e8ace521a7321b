"""Starts and ends real servers for tests: keys, certificates, data directories, ports, logs."""
import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import wire

HOLDFASTD = ""
HOLDFAST_TOKEN = ""

START_TIMEOUT = 120


def main(extra=0):
    """unittest's main for a program that is called with the paths of holdfastd and holdfast-token."""
    global HOLDFASTD, HOLDFAST_TOKEN
    HOLDFASTD, HOLDFAST_TOKEN = sys.argv[1:3]
    unittest.main(module="__main__", argv=[sys.argv[0]] + sys.argv[3 + extra:], verbosity=2)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def free_descriptors():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


class Keys:
    """Keys and certificates, made once for all servers of a program by holdfast-token."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="holdfast-test-keys.")
        self.run("cert", "--ca-dir", self.folder, "--name", "localhost", "--name", "127.0.0.1",
                 "--name", "::1")
        self.run("keys", "new", "--alg", "HS256", "--kid", "hs", "--out", self.path("issuer.jwks"))
        self.run("keys", "new", "--alg", "ES256", "--kid", "es", "--out", self.path("issuer.jwks"),
                 "--public", self.path("login.jwks"))
        with open(self.path("issuer.jwks"), encoding="ascii") as file:
            keys = json.load(file)["keys"]
        with open(self.path("login.jwks"), encoding="ascii") as file:
            login = json.load(file)["keys"]
        self.secret = next(base64.urlsafe_b64decode(key["k"] + "==") for key in keys
                           if key["kid"] == "hs")
        login.append(next(key for key in keys if key["kid"] == "hs"))
        self.write_login_keys(login)

    def write_login_keys(self, keys, name="login.jwks"):
        with open(self.path(name), "w", encoding="ascii", opener=private) as file:
            json.dump({"keys": keys}, file)

    def path(self, name):
        return os.path.join(self.folder, name)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def run(*arguments):
        done = subprocess.run([HOLDFAST_TOKEN, *arguments], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token(self, user, device=1, ttl=3600, secret=None, kid="hs", **claims):
        """HS256, made here."""
        header = {"alg": "HS256", "kid": kid}
        body = {"sub": str(user), "dev": str(device), "exp": int(time.time()) + ttl, **claims}
        signed = (encode(json.dumps(header).encode()) + b"."
                  + encode(json.dumps(body).encode()))
        return signed + b"." + encode(hmac.new(secret or self.secret, signed,
                                               hashlib.sha256).digest())

    def es256_token(self, user, device=1):
        return self.run("issue", "--key", self.path("issuer.jwks"), "--kid", "es", "--user",
                        str(user), "--device", str(device)).strip().encode()


def private(path, flags):
    return os.open(path, flags, 0o600)


class Server:
    """One data directory, and the process that serves it, if one runs."""

    environment = None  # of the process; None: ours

    def __init__(self, keys, listen="127.0.0.1:0", **options):
        self.keys = keys
        self.folder = tempfile.mkdtemp(prefix="holdfast-test.")
        self.data = os.path.join(self.folder, "data")
        self.options = {
            "listen": listen, "admin_listen": "127.0.0.1:0", "data_dir": self.data,
            "tls_cert": keys.path("server.pem"), "tls_key": keys.path("server-key.pem"),
            "login_keys": keys.path("login.jwks"), "pin_cores": "false", "cores": 2,
            "max_connections": 1000, "journal_bytes": "16M", "journal_segment_bytes": "1M",
            "drain_timeout_s": 5, "drain_spread_ms": 1000, **options,
        }
        self.process = None
        self.context = wire.tls_context(keys.path("ca.pem"))

    def arguments(self, **changes):
        options = {**self.options, **changes}
        return [f"--{key.replace('_', '-')}={value}" for key, value in options.items()
                if value is not None]

    def start(self, wait=True, extra=(), **changes):
        assert self.process is None
        self.lines = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen([HOLDFASTD, *extra, *self.arguments(**changes)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True, errors="replace",
                                        env=self.environment)
        self.reader = threading.Thread(target=self.read_log, args=(self.process.stderr,),
                                       daemon=True)
        self.reader.start()
        if wait:
            self.wait_line(r"event=ready ")
            self.addresses = [self.parse(line) for line in self.find_lines(r"event=listening ")]
            self.address = self.addresses[0]
            admin = self.find_lines(r"event=admin_listening ")
            self.admin = self.parse(admin[0]) if admin else None
        return self

    @staticmethod
    def parse(line):
        host, port = re.search(r" address=\[?([0-9a-f:.]+)\]?:(\d+)$", line).groups()
        return host, int(port)

    def read_log(self, stream):
        for line in stream:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        stream.close()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def find_lines(self, pattern):
        with self.changed:
            return [line for line in self.lines if line and re.search(pattern, line)]

    def wait_line(self, pattern, count=1, timeout=START_TIMEOUT):
        """Waits until so many lines match; returns the last."""
        with self.changed:
            def found():
                return [line for line in self.lines if line and re.search(pattern, line)]
            self.changed.wait_for(lambda: len(found()) >= count or self.lines[-1:] == [None],
                                  timeout)
            if len(found()) < count:
                raise AssertionError(f"no line {pattern}:\n" + self.log())
            return found()[count - 1]

    def log(self):
        return "\n".join(line for line in self.lines if line)

    def wait_exit(self, timeout=START_TIMEOUT):
        code = self.process.wait(timeout)
        self.reader.join(timeout)
        self.process = None
        return code

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, timeout=START_TIMEOUT):
        """SIGTERM; a server that doesn't end well is a failure."""
        self.signal(signal.SIGTERM)
        code = self.wait_exit(timeout)
        assert code == 0, f"exit code {code}:\n{self.log()}"

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait_exit()

    def close(self):
        if self.process is not None:
            if self.process.poll() is None:
                self.stop()
            else:
                code = self.wait_exit()
                raise AssertionError(f"the server ended by itself, {code}:\n{self.log()}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, **options):
        return wire.Connection(options.pop("address", self.address),
                               options.pop("context", self.context), **options)

    def login(self, user, device=1, token=None, **options):
        return wire.Client(options.pop("address", self.address),
                           options.pop("context", self.context), user, device,
                           token or self.keys.token(user, device), **options)

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection(*self.admin, timeout=wire.TIMEOUT)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name, **labels):
        """The sum over all cores of the rows with these labels."""
        total = 0
        for line in self.get("/metrics")[1].splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                have = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if all(have.get(key) == value for key, value in labels.items()):
                    total += float(found[3])
        return total

    def wait_metric(self, name, value, timeout=wire.TIMEOUT, **labels):
        """Polls until the metric has that value."""
        deadline = time.monotonic() + timeout
        while self.metric(name, **labels) != value:
            assert time.monotonic() < deadline, \
                f"{name} {labels}: {self.metric(name, **labels)}, not {value}"


class ServerTest(unittest.TestCase):
    """A class of tests with one server, which serves them all."""

    OPTIONS = {}

    @classmethod
    def setUpClass(cls):
        cls.keys = Keys()
        cls.addClassCleanup(cls.keys.close)
        cls.server = Server(cls.keys, **cls.OPTIONS)
        cls.addClassCleanup(cls.server.close)
        cls.server.start()
        cls.next_user = 1000

    @classmethod
    def new_user(cls):
        cls.next_user += 1
        return cls.next_user

    def login(self, *arguments, **options):
        client = self.server.login(*arguments, **options)
        self.addCleanup(client.close)
        return client

    def connect(self, **options):
        connection = self.server.connect(**options)
        self.addCleanup(connection.close)
        return connection


def partition_of(user):
    """docs/architecture: the finaliser of SplitMix64, modulo 16,384."""
    mask = (1 << 64) - 1
    user ^= user >> 30
    user = user * 0xbf58476d1ce4e5b9 & mask
    user ^= user >> 27
    user = user * 0x94d049bb133111eb & mask
    user ^= user >> 31
    return user % 16384


def core_of(user, cores=2, volumes=16):
    return partition_of(user) % volumes % cores
