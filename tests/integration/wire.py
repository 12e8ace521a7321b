"""The client protocol of docs/protocol.md, as far as tests need it: frames, and a client over TLS.

Written from the document, not from the code: a second opinion on both.
"""
import os
import socket
import ssl
import struct
import time

HELLO, HELLO_OK, TOKEN, PING, PONG, GOAWAY, BYE, ERROR = 1, 2, 3, 5, 6, 8, 9, 10
SEND, ACCEPTED, REJECTED, ENTRIES, ACK, HISTORY, PAGE = 16, 17, 18, 19, 21, 33, 34

RESUME, RESET = 1, 3
BEFORE, AFTER = 1, 2

CODES = {
    "BAD_FRAME": 1, "FRAME_TOO_LARGE": 2, "BAD_FIELD": 3, "UNSUPPORTED_TLV": 4, "UNEXPECTED": 5,
    "VERSION": 6, "HELLO_EXPECTED": 7, "BAD_TOKEN": 8, "TOKEN_EXPIRED": 9, "REPLACED": 10,
    "CONFLICT": 11, "STALE": 12, "TRIMMED": 13, "IDLE": 14, "STALLED": 15, "TOO_MANY_DEVICES": 16,
    "BUSY": 17, "INTERNAL": 18, "GOING_AWAY": 19, "UNSUPPORTED": 128, "RETRY": 256, "FULL": 257,
    "ORDER": 258, "BAD_CONVERSATION": 512, "BODY_TOO_LARGE": 513, "BAD_KIND": 514, "UNKNOWN": 768,
    "BAD_CURSOR": 1024, "TOO_MANY_REQUESTS": 1025, "NOT_FOUND": 1026, "UNAVAILABLE": 1027,
}
NAMES = {number: name for name, number in CODES.items()}

TIMEOUT = 60  # generous: sanitizers on a busy machine; a test that waits so long has failed anyway


class Closed(Exception):
    """The server ended the connection."""


def frame(kind, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind]) + payload


def tlv(tag, value):
    return struct.pack(">BH", tag, len(value)) + value


def hello_payload(user, device, token, cursor=(0, 0, 0), version=1, window=0, mode=0, extra=b""):
    fixed = struct.pack(">HQQIQQQIBI", version, 0, user, device, *cursor, 0, mode, window)
    return fixed + tlv(2, token) + extra


def send_payload(counter, nonce, conversation, body, kind=0):
    return struct.pack(">Q16sQBH", counter, nonce, conversation, kind, len(body)) + body


def history_payload(request, conversation, direction, anchor, n, byte_count=0):
    return struct.pack(">IQBQHI", request, conversation, direction, anchor, n, byte_count)


class Reader:
    """Takes fields from the front of a payload."""

    def __init__(self, payload):
        self.payload = payload
        self.at = 0

    def take(self, pattern):
        values = struct.unpack_from(">" + pattern, self.payload, self.at)
        self.at += struct.calcsize(">" + pattern)
        return values if len(values) > 1 else values[0]

    def bytes(self, count):
        value = self.payload[self.at:self.at + count]
        assert len(value) == count, "cut short"
        self.at += count
        return value

    def tlvs(self):
        found = {}
        while self.at < len(self.payload):
            tag, count = self.take("BH")
            assert tag not in found
            found[tag] = self.bytes(count)
        return found


def read_entry(reader):
    form = reader.take("B")
    if form == 1:
        names = ("flags", "kind", "id", "conversation", "sender", "device", "prev", "n", "cn")
        entry = dict(zip(names, reader.take("BBQQQIQQQ"), strict=True), form="MESSAGE")
        entry["body"] = reader.bytes(reader.take("H"))
        entry["own"] = bool(entry["flags"] & 1)
        if entry["own"]:
            entry["nonce"] = reader.bytes(16)
            entry["counter"] = reader.take("Q")
        return entry
    if form == 2:
        counter, message = reader.take("QQ")
        return {"form": "SENT", "counter": counter, "id": message}
    assert form == 3, f"entry of form {form}"
    return dict(zip(("code", "ref_seq", "id", "conversation"), reader.take("HQQQ"), strict=True),
                form="REFUSED")


def decode(kind, payload):
    reader = Reader(payload)
    if kind == HELLO_OK:
        names = ("caps", "time", "epoch", "head", "floor", "sver", "last_counter", "result",
                 "keepalive_s", "life_s", "frame_bytes_max", "body_bytes_max", "sends_outstanding",
                 "requests_outstanding", "window")
        fields = dict(zip(names, reader.take("QQQQQQQBIIIIHHI"), strict=True))
        fields["resume_token"] = reader.tlvs().get(2)
    elif kind == TOKEN:
        fields = {"life_s": reader.take("I")}
        fields["token"] = reader.tlvs()[2]
    elif kind in (PING, PONG):
        fields = {"opaque": reader.take("Q")}
    elif kind == GOAWAY:
        fields = dict(zip(("why", "wait_min_ms", "wait_max_ms"), reader.take("HII"), strict=True))
    elif kind == ERROR:
        fields = dict(zip(("code", "request", "retry_ms", "fatal"), reader.take("HIIB"),
                          strict=True))
        fields["name"] = NAMES.get(fields["code"])
        fields["text"] = reader.tlvs().get(1, b"").decode()
    elif kind == ACCEPTED:
        fields = dict(zip(("counter", "id", "seq"), reader.take("QQQ"), strict=True))
    elif kind == REJECTED:
        fields = dict(zip(("counter", "code", "retry_ms", "expected"), reader.take("QHIQ"),
                          strict=True))
        fields["name"] = NAMES.get(fields["code"])
    elif kind == ENTRIES:
        first, count = reader.take("QH")
        fields = {"entries": []}
        for seq in range(first, first + count):
            fields["entries"].append(dict(read_entry(reader), seq=seq))
    elif kind == PAGE:
        fields = dict(zip(("request", "conversation", "flags"), reader.take("IQB"), strict=True))
        fields["more"], fields["trimmed"] = bool(fields["flags"] & 1), bool(fields["flags"] & 2)
        fields["entries"] = []
        for _ in range(reader.take("H")):
            seq = reader.take("Q")
            fields["entries"].append(dict(read_entry(reader), seq=seq))
    else:
        return {"payload": payload}
    assert not reader.tlvs() or kind in (HELLO_OK, TOKEN, ERROR, GOAWAY)
    return fields


def tls_context(ca, alpn=("holdfast/1",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Connection:
    """TLS and frames, without any idea of what they mean."""

    def __init__(self, address, context, session=None, source=None, name="localhost", before=b""):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        raw = socket.socket(family, socket.SOCK_STREAM)
        try:
            raw.settimeout(TIMEOUT)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source:
                raw.bind((source, 0))
            raw.connect(address)
            raw.sendall(before)  # what a proxy says of its client
            self.socket = context.wrap_socket(raw, server_hostname=name, session=session)
        except BaseException:
            raw.close()
            raise
        self.buffer = b""

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def write(self, data):
        self.socket.sendall(data)

    def write_frame(self, kind, payload=b""):
        self.write(frame(kind, payload))

    def _fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server said nothing in time")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("close_notify")
        self.buffer += data

    def read_frame(self, timeout=TIMEOUT):
        """(type, fields) of the next frame."""
        deadline = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= 4:
                length = int.from_bytes(self.buffer[:3], "big")
                assert length + 4 <= 16000, "frame too large"
                if len(self.buffer) >= 4 + length:
                    kind, payload = self.buffer[3], self.buffer[4:4 + length]
                    self.buffer = self.buffer[4 + length:]
                    return kind, decode(kind, payload)
            self._fill(deadline)

    def expect(self, kind, timeout=TIMEOUT):
        got, fields = self.read_frame(timeout)
        assert got == kind, f"expected frame {kind}, got {got}: {fields}"
        return fields

    def expect_error(self, name, timeout=TIMEOUT):
        """ERROR with that code, and then the end."""
        fields = self.expect(ERROR, timeout)
        assert fields["name"] == name, fields
        assert fields["fatal"] == 1, fields
        self.expect_end(timeout)
        return fields

    def expect_end(self, timeout=TIMEOUT):
        try:
            got = self.read_frame(timeout)
        except Closed:
            return
        raise AssertionError(f"expected the end, got {got}")


class Client(Connection):
    """A device that logs in, counts its messages, and checks the order of what it gets."""

    def __init__(self, address, context, user, device, token, cursor=(0, 0, 0), window=0,
                 behind=b"", **options):
        super().__init__(address, context, **options)
        self.user, self.device = user, device
        try:
            self.write(frame(HELLO, hello_payload(user, device, token, cursor, window=window))
                       + behind)
            self.hello = self.expect(HELLO_OK)
        except BaseException:
            self.close()
            raise
        self.counter = self.hello["last_counter"]
        self.epoch = self.hello["epoch"]
        resumed = self.hello["result"] == RESUME
        self.seq = cursor[1] if resumed else self.hello["floor"] - 1
        self.entries = []      # in order of seq
        self.answers = {}      # counter -> ACCEPTED or REJECTED
        self.pages = {}        # request -> PAGE or ERROR
        self.others = []       # whatever else came
        self.ack = True

    @property
    def cursor(self):
        return (self.epoch, self.seq, 0)

    def send(self, conversation, body, nonce=None, kind=0, counter=None):
        """Writes a SEND; returns its counter."""
        if counter is None:
            self.counter += 1
            counter = self.counter
        self.write_frame(SEND, send_payload(counter, nonce or os.urandom(16), conversation, body,
                                            kind))
        return counter

    def take(self, timeout=TIMEOUT):
        """Reads one frame and files it."""
        kind, fields = self.read_frame(timeout)
        if kind == ENTRIES:
            for entry in fields["entries"]:
                assert entry["seq"] == self.seq + 1, f"seq {entry['seq']} after {self.seq}"
                self.seq = entry["seq"]
                self.entries.append(entry)
            if self.ack:
                self.write_frame(ACK, struct.pack(">QQ", self.seq, 0))
        elif kind in (ACCEPTED, REJECTED):
            assert fields["counter"] not in self.answers or kind == ACCEPTED
            self.answers[fields["counter"]] = dict(fields, accepted=kind == ACCEPTED)
        elif kind == PAGE or (kind == ERROR and fields["request"] != 0):
            self.pages[fields["request"]] = dict(fields, kind=kind)
        else:
            self.others.append((kind, fields))
        return kind, fields

    def wait_for(self, condition, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while not condition():
            self.take(max(0.001, deadline - time.monotonic()))

    def wait_answer(self, counter):
        self.wait_for(lambda: counter in self.answers)
        return self.answers[counter]

    def wait_entries(self, count):
        self.wait_for(lambda: len(self.entries) >= count)
        return self.entries

    def history(self, request, conversation, direction, anchor, n, byte_count=0):
        self.write_frame(HISTORY, history_payload(request, conversation, direction, anchor, n,
                                                  byte_count))
        self.wait_for(lambda: request in self.pages)
        return self.pages.pop(request)

    def ping(self, opaque=1):
        """Everything written before has been handled when this returns."""
        self.write_frame(PING, struct.pack(">Q", opaque))
        self.wait_for(lambda: (PONG, {"opaque": opaque}) in self.others)
        self.others.remove((PONG, {"opaque": opaque}))

    def leave(self):
        self.write_frame(BYE)
        self.wait_end()
        self.close()

    def wait_end(self, timeout=TIMEOUT):
        """Reads on until the server closes; returns the last ERROR's name, if one came."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                self.take(max(0.001, deadline - time.monotonic()))
        except Closed:
            errors = [fields["name"] for kind, fields in self.others if kind == ERROR]
            return errors[-1] if errors else None
