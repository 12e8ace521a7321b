#!/usr/bin/env python3
"""An attacker on a server of ours: one kind of attack, over loopback, until it is killed.

    attack.py KIND HOST:PORT CA LOGIN_KEYS [CONNECTIONS [FIRST_USER]]
    attack.py --list

LOGIN_KEYS is a JSON Web Key Set with an HS256 secret. Prints one line {"event": "on"} when it is under
way. A connection that the server ends is opened anew, so an attack goes on at whatever rate it is let.
"""
import base64
import ctypes
import hashlib
import hmac
import json
import os
import random
import selectors
import socket
import ssl
import sys
import time
import _ssl

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
import wire  # noqa: E402  (the path must be known first)

OPTIONAL = 200  # a frame type that servers ignore
HALF_RECORD = b"\x17\x03\x03\x40\x00"  # the header of a record of 16 KB
PROXY_HEADER = bytes.fromhex("0d0a0d0a000d0a515549540a2111000cc0000201c000020200090009")
TICK_S = 0.02
NOTES = 8


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Target:
    """The server, and how to get in."""

    def __init__(self, address, ca, keys):
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.context = wire.tls_context(ca)
        self.stranger = wire.tls_context(ca, alpn=("http/1.1",))
        with open(keys, encoding="ascii") as file:
            key = next(one for one in json.load(file)["keys"] if one["kty"] == "oct")
        self.kid, self.secret = key["kid"], base64.urlsafe_b64decode(key["k"] + "==")

    def token(self, user, device=1, header=None, secret=None, **claims):
        header = {"alg": "HS256", "kid": self.kid, **(header or {})}
        body = {"sub": str(user), "dev": str(device), "exp": int(time.time()) + 3600, **claims}
        signed = encode(json.dumps(header).encode()) + b"." + encode(json.dumps(body).encode())
        return signed + b"." + encode(hmac.new(secret or self.secret, signed,
                                               hashlib.sha256).digest())

    def connect(self, receive_bytes=None):
        raw = socket.socket()
        raw.settimeout(10)
        if receive_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.connect(self.address)
        return raw

    def shake(self, context=None, **options):
        raw = self.connect(**options)
        try:
            return (context or self.context).wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise

    def login(self, user, **options):
        tls = self.shake(**options)
        tls.sendall(wire.frame(wire.HELLO, wire.hello_payload(user, 1, self.token(user),
                                                              window=1 << 20)))
        head = b""
        while len(head) < 4:
            data = tls.recv(4096)
            if not data:
                break
            head += data
        if len(head) < 4 or head[3] != wire.HELLO_OK:
            tls.close()
            raise ConnectionError("not let in")
        return tls


class Attack:
    """One connection's part. `tls`: what is written goes through TLS; else it is the bytes."""

    reads = True

    def __init__(self, target, user, chance):
        self.target, self.user, self.chance = target, user, chance
        self.pending = b""
        self.due = 0.0
        self.socket = self.open()
        self.socket.setblocking(False)

    def open(self):
        return self.target.login(self.user)

    def more(self):
        """What it would send now; None: it is finished, and begins anew."""
        return b""

    def step(self, now):
        """False: it is over."""
        if now < self.due:
            return True
        try:
            if not self.pending:
                self.pending = self.more()
                if self.pending is None:
                    return False
            if self.pending:
                sent = self.write(self.pending)
                self.pending = self.pending[sent:]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return True
        return True

    def write(self, data):
        return self.socket.send(data)

    def read(self):
        """False: it is over."""
        try:
            return bool(self.socket.recv(65536))
        except (ssl.SSLWantReadError, BlockingIOError):
            return True

    def later(self, seconds):
        self.due = time.monotonic() + seconds

    def close(self):
        self.socket.close()


class Raw(Attack):
    """Behind the handshake, but past TLS: bytes of records as they are."""

    def write(self, data):
        return os.write(self.socket.fileno(), data)


class HalfRecords(Raw):
    """Logged in: a record's header and one byte, then another now and then."""

    def __init__(self, *arguments):
        self.begun = False
        super().__init__(*arguments)

    def more(self):
        begin, self.begun = not self.begun, True
        self.later(self.chance.uniform(0.5, 1.5))
        return HALF_RECORD + b"x" if begin else b"x"


class HalfLarge(HalfRecords):
    """The same with a third of the record, so that it takes the largest memory there is."""

    def more(self):
        begin, self.begun = not self.begun, True
        self.later(self.chance.uniform(0.5, 1.5))
        return HALF_RECORD + b"x" * 5600 if begin else b"x"


class SlowHandshake(Attack):
    """A ClientHello, a byte at a time."""

    def open(self):
        outgoing = ssl.MemoryBIO()
        tls = self.target.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        self.rest = outgoing.read()[:-1]
        return self.target.connect()

    def more(self):
        self.later(self.chance.uniform(0.5, 1.5))
        byte, self.rest = self.rest[:1], self.rest[1:]
        return byte


class HalfOpen(Attack):
    """A connection that says nothing."""

    def open(self):
        return self.target.connect()


class Garbage(Attack):
    """What is no TLS, no ALPN of ours, or a proxy's header from a stranger; again and again."""

    def open(self):
        if self.chance.randrange(4) == 0:
            try:
                self.target.shake(self.target.stranger).close()
            except (ssl.SSLError, ConnectionError):
                pass
        return self.target.connect()

    def more(self):
        if self.due:
            return None
        self.later(0.01)
        return self.chance.choice((b"GET / HTTP/1.1\r\n\r\n", self.chance.randbytes(2000),
                                   PROXY_HEADER + b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\xff\xff"))


class Tokens(Attack):
    """HELLO with a forged token: every one costs a handshake."""

    def open(self):
        return self.target.shake()

    def more(self):
        if self.due:
            return None
        self.later(0.01)
        target, user = self.target, self.user
        token = self.chance.choice((
            lambda: target.token(user, header={"alg": "none"}).rsplit(b".", 1)[0] + b".",
            lambda: target.token(user, header={"alg": "ES256"}),
            lambda: target.token(user, header={"kid": "../../dev/null"}),
            lambda: target.token(user, exp=1),
            lambda: target.token(user, exp=1 << 40),
            lambda: target.token(user, secret=b"x" * 32),
            lambda: target.token(user, x="x" * 1500),
            lambda: target.token(user + 1)))()
        return wire.frame(wire.HELLO, wire.hello_payload(user, 1, token[:2000]))


class NoRead(Attack):
    """Asks for history that it never reads, while large messages of its own are pushed to it."""

    reads = False

    def open(self):
        self.asked = 0
        tls = self.target.login(self.user, receive_bytes=4096)
        for counter in range(1, NOTES + 1):  # in a later life these are repeats or out of order
            tls.sendall(wire.frame(wire.SEND, wire.send_payload(
                counter, self.user.to_bytes(8, "big") + counter.to_bytes(8, "big"), self.user,
                b"n" * 14000)))
        self.due = time.monotonic() + 1
        return tls

    def more(self):
        if self.asked == 4:
            self.later(1)
            return wire.frame(wire.PING, b"\0" * 8)
        self.asked += 1
        return wire.frame(wire.HISTORY, wire.history_payload(self.asked, self.user, wire.BEFORE,
                                                             0, 64, 1 << 20))


class TinyFrames(Attack):
    def more(self):
        return wire.frame(OPTIONAL) * 300


class MaxFrames(Attack):
    def more(self):
        return wire.frame(OPTIONAL, b"x" * 15996)


class Pings(Attack):
    def more(self):
        return wire.frame(wire.PING, b"12345678") * 100


class KeyUpdates(Attack):
    """A KeyUpdate that asks for one, and a PING so that the answer has something to go before."""

    library = ctypes.CDLL(_ssl.__file__)

    def open(self):
        tls = super().open()
        # PySSLSocket begins: object head, the Python socket, SSL *.
        handle = ctypes.c_void_p.from_address(id(tls._sslobj) + 2 * ctypes.sizeof(ctypes.c_void_p)
                                              + ctypes.sizeof(ctypes.c_void_p))
        self.handle = ctypes.c_void_p(handle.value)
        if self.library.SSL_version(self.handle) != 0x304:
            raise SystemExit("this Python's ssl module keeps its SSL elsewhere: no KeyUpdates")
        return tls

    def more(self):
        self.library.SSL_key_update(self.handle, 1)
        return wire.frame(wire.PING, b"12345678")

    def step(self, now):
        return all(super(KeyUpdates, self).step(now) for _ in range(20))


# name: (class, connections by default, of different users)
KINDS = {
    "half_records": (HalfRecords, 1200),
    "half_large": (HalfLarge, 400),
    "slow_handshake": (SlowHandshake, 1500),
    "half_open": (HalfOpen, 4000),
    "no_read": (NoRead, 150),
    "tiny_frames": (TinyFrames, 20),
    "max_frames": (MaxFrames, 20),
    "pings": (Pings, 20),
    "key_updates": (KeyUpdates, 20),
    "garbage": (Garbage, 50),
    "tokens": (Tokens, 20),
}


class Run:
    def __init__(self, kind, target, count, first_user):
        self.kind, self.target, self.count, self.first_user = kind, target, count, first_user
        self.chance = random.Random(first_user)
        self.selector = selectors.DefaultSelector()
        self.alive = {}  # number -> attack
        self.again = {}  # number -> when

    def open(self, number):
        try:
            attack = self.kind(self.target, self.first_user + number, self.chance)
        except OSError:
            self.again[number] = time.monotonic() + 0.2
            return
        self.alive[number] = attack
        if attack.reads:
            self.selector.register(attack.socket, selectors.EVENT_READ, number)

    def close(self, number):
        attack = self.alive.pop(number)
        if attack.reads:
            self.selector.unregister(attack.socket)
        attack.close()
        self.again[number] = time.monotonic()

    def turn(self):
        over = []
        for key, _ in self.selector.select(TICK_S):
            try:
                if not self.alive[key.data].read():
                    over.append(key.data)
            except OSError:
                over.append(key.data)
        now = time.monotonic()
        for number, attack in self.alive.items():
            try:
                if number not in over and not attack.step(now):
                    over.append(number)
            except OSError:
                over.append(number)
        for number in over:
            self.close(number)
        for number in [number for number, at in self.again.items() if at <= now][:50]:
            del self.again[number]
            self.open(number)

    def attack(self):
        for number in range(self.count):
            self.open(number)
            if number % 50 == 49:
                self.turn()
        print(json.dumps({"event": "on", "connections": len(self.alive)}), flush=True)
        while True:
            self.turn()


def main(arguments):
    if arguments == ["--list"]:
        print("\n".join(KINDS))
        return
    if not 4 <= len(arguments) <= 6 or arguments[0] not in KINDS:
        sys.exit(__doc__)
    kind, count = KINDS[arguments[0]]
    if len(arguments) > 4:
        count = int(arguments[4])
    first_user = int(arguments[5]) if len(arguments) > 5 else 5000001
    Run(kind, Target(*arguments[1:4]), count, first_user).attack()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        pass
