"""The clients of other TLS libraries, driven as a person would: see client.h for what they can be
told; and wire.py's client on top of them, so that what is carried is the protocol itself."""
import functools
import os
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir, "integration"))

import harness  # pylint: disable=wrong-import-position
import wire  # pylint: disable=wrong-import-position

FOLDER = os.path.dirname(os.path.abspath(__file__))


class Programs:
    """Where meson built what the tests start; set by main."""
    openssl = gnutls = moved_clock = build = records = ""


def main():
    """For a program called with holdfastd, holdfast-token, the clients and the build's folder."""
    names = ("openssl", "gnutls", "records", "moved_clock", "build")
    for name, path in zip(names, sys.argv[3:8], strict=True):
        setattr(Programs, name, path)
    harness.main(extra=5)


class Clock:
    """A wall clock that the test moves, of the program that is started with it."""

    def __init__(self, path):
        self.path = path
        self.move(0)

    def move(self, seconds):
        if os.path.exists(self.path):
            with open(self.path, "r+b") as file:  # in place: the program has it mapped
                file.write(struct.pack("=q", seconds))
        else:
            with open(self.path, "wb") as file:
                file.write(struct.pack("=q", seconds))

    def environment(self):
        asan = os.environ.get("ASAN_OPTIONS", "")
        return {**os.environ, "LD_PRELOAD": Programs.moved_clock, "HF_TEST_CLOCK": self.path,
                "ASAN_OPTIONS": ":".join(filter(None, (asan, "verify_asan_link_order=0")))}


@functools.cache
def build_go_client():
    """Built when it is first wanted, not with everything else: a minute on a new machine."""
    program = os.path.join(Programs.build, "client_go")
    environment = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "CGO_ENABLED": "0",
                   "GOTOOLCHAIN": "local", "GOPROXY": "off",
                   "GOCACHE": os.path.join(Programs.build, os.pardir, "go-cache")}
    environment["GOCACHE"] = os.path.abspath(environment["GOCACHE"])
    done = subprocess.run(["go", "build", "-o", program, os.path.join(FOLDER, "client.go")],
                          env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return program


class Refused(Exception):
    """The handshake failed."""

    def __init__(self, answer):
        super().__init__(answer)
        self.alert = int(answer[6:]) if answer.startswith("alert=") else None


class Unsupported(unittest.SkipTest):
    """The library can't do that."""


class Peer:
    """A client program. It keeps its last session while it runs."""

    GAPS = {"openssl": {"modes"}, "gnutls": set(), "go": {"suite", "modes", "update", "pad", "retry"}}

    def __init__(self, library, folder):
        self.library = library
        self.gaps = self.GAPS[library]
        program = build_go_client() if library == "go" else getattr(Programs, library)
        self.clock = Clock(os.path.join(folder, library + ".clock"))
        # What is built without a module has the defaults of old: the new group isn't among them.
        environment = ({**os.environ, "GODEBUG": "tlsmlkem=1"} if library == "go"
                       else self.clock.environment())
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment)

    def close(self):
        self.process.communicate(timeout=wire.TIMEOUT)
        assert self.process.returncode == 0, f"the client ended with {self.process.returncode}"

    def need(self, what):
        """Skips a test that is about what the library can't do. That it can't is tested elsewhere."""
        if what in self.gaps:
            raise Unsupported(what)

    def say(self, *words):
        """One command; what is answered to it, as (first word, the rest)."""
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client has ended"
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "unsupported":
            assert rest in self.gaps, f"{self.library} should be able to: {rest}"
            raise Unsupported(rest)
        assert words[0] not in self.gaps, f"{self.library} can do it after all: {words[0]}"
        return word, rest

    def do(self, *words):
        answer = self.say(*words)
        assert answer == ("ok", ""), answer

    def connect(self, address, ahead=0, **options):
        """The answer's fields; raises Refused."""
        if self.library != "go":
            self.clock.move(ahead)
        elif ahead:
            options["ahead"] = ahead
        words = [f"{key}={value}" for key, value in options.items() if value is not None]
        word, rest = self.say("connect", address[0], str(address[1]), *words)
        assert not self.gaps & options.keys(), f"{self.library} can do it after all: {options}"
        if word == "refused":
            raise Refused(rest)
        assert word == "connected", word
        fields = dict(field.split("=", 1) for field in rest.split())
        return {**fields, "resumed": fields["resumed"] == "1", "hellos": int(fields["hellos"])}

    def read(self):
        """Bytes; or raises wire.Closed, with how it ended."""
        word, rest = self.say("read")
        if word != "data":
            raise wire.Closed(f"{word} {rest}".strip())
        return bytes.fromhex(rest)


class Transport(wire.Connection):
    """A wire.Connection over a peer's program instead of a socket."""

    def __init__(self, address, peer, alpn="holdfast/1", sni="localhost", **options):
        self.peer = peer
        self.info = peer.connect(address, alpn=alpn, sni=sni, **options)
        self.buffer = b""

    def close(self):
        self.peer.do("drop")

    def write(self, data):
        self.peer.do("write", data.hex())

    def _fill(self, deadline):
        self.buffer += self.peer.read()


class Client(wire.Client, Transport):
    """A device that talks through a peer's program."""
