"""Clients of a recorded server, and the ledger of all that it told them, with the instant at which
they had read it."""
import os
import random
import ssl
import threading
import time

import wire

OUTSTANDING = 8
ANSWER_TIMEOUT = 60
GONE = (wire.Closed, ConnectionError, ssl.SSLError, OSError)


def body_of(user, device, counter, length):
    """What check.c knows to be this message: a header, and bytes that count up from the counter."""
    def header(size):
        return b"%d %d %d %d " % (user, device, counter, size)
    length = max(length, len(header(length)) + 1)
    head = header(length)
    return head + bytes((counter + i) & 255 for i in range(len(head), length))


def draw_length(chance):
    kind = chance.random()
    if kind < 0.7:
        return chance.randint(60, 200)
    return chance.randint(600, 2000) if kind < 0.9 else chance.randint(3000, 14000)


class Ledger:
    """Facts in the form of ledger.h. Any thread may add."""

    def __init__(self):
        self.lines = []
        self.accepted = []  # (at, user, device, counter, seq, id, peer)

    def accept(self, user, device, counter, nonce, answer, peer, at):
        self.accepted.append((at, user, device, counter, answer["seq"], answer["id"], peer))
        self.lines.append(f"accepted {at} {user} {device} {counter} {nonce.hex()} {answer['seq']} "
                          f"{answer['id']} {peer}")

    def entry(self, user, seq, message, at):
        self.lines.append(f"entry {at} {user} {seq} {message}")

    def acked(self, user, device, seq):
        self.lines.append(f"acked {time.monotonic_ns()} {user} {device} {seq}")

    def write(self, path):
        with open(path, "w", encoding="ascii") as file:
            file.write("\n".join(self.lines) + "\n")


class Device:
    """One device of a user, over all its connections."""

    def __init__(self, load, user, device, seed):
        self.load = load
        self.user, self.device = user, device
        self.cursor = (0, 0, 0)
        self.chance = random.Random(seed)
        self.failure = None
        self.refused = False  # and what is behind that is yet to be refused
        self.thread = None

    def start(self, server):
        self.thread = threading.Thread(target=self.run, args=(server,), daemon=True)
        self.thread.start()

    def run(self, server):
        try:
            self.load.ledger.acked(self.user, self.device, self.cursor[1])
            client = server.login(self.user, self.device, cursor=self.cursor)
        except GONE:
            return
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure
            return
        try:
            self.talk(client)
        except GONE:
            pass
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure
        finally:
            client.close()

    def talk(self, client):
        """Sends and reads until the load stops, or the server goes."""
        waiting = {}  # counter: (nonce, peer)
        self.refused = False
        self.cursor = client.cursor
        while not (self.load.stopping and not waiting):
            while not (self.load.stopping or self.refused) and len(waiting) < OUTSTANDING \
                    and self.load.take_one():
                peer = self.chance.choice(self.load.users)
                nonce = self.chance.randbytes(16)
                counter = client.counter + 1
                waiting[counter] = (nonce, peer)
                client.send(peer, body_of(self.user, self.device, counter,
                                          draw_length(self.chance)), nonce=nonce)
            self.take(client, waiting)

    def take(self, client, waiting):
        try:
            kind, fields = client.read_frame(0.2)
        except TimeoutError:
            return
        at = time.monotonic_ns()
        if kind == wire.ACCEPTED:
            nonce, peer = waiting.pop(fields["counter"])
            self.load.ledger.accept(self.user, self.device, fields["counter"], nonce, fields, peer,
                                    at)
            assert not self.refused, "accepted behind a refusal"
        elif kind == wire.REJECTED:
            waiting.pop(fields["counter"])
            self.load.refused += 1
            self.load.give_one()
            self.refused = True
            if not waiting:  # all behind it were refused too: on from there
                self.refused = False
                client.counter = fields["expected"] - 1
                time.sleep(min(fields["retry_ms"], 50) / 1000)
        elif kind == wire.ENTRIES:
            for entry in fields["entries"]:
                assert entry["seq"] == client.seq + 1, (entry["seq"], client.seq)
                client.seq = entry["seq"]
                self.load.ledger.entry(self.user, entry["seq"], entry["id"], at)
            self.load.ledger.acked(self.user, self.device, client.seq)
            client.write_frame(wire.ACK, wire.struct.pack(">QQ", client.seq, 0))
            self.cursor = client.cursor
        elif kind == wire.ERROR:
            raise AssertionError(f"ERROR {fields}")


class Load:
    """Users who write to each other at random. Their ids and messages come from the seed."""

    def __init__(self, seed, user_count=6, devices=2):
        chance = random.Random(seed)
        self.ledger = Ledger()
        self.users = [chance.randrange(1, 1 << 40) for _ in range(user_count)]
        self.devices = [Device(self, user, device, seed * 1000 + user + device)
                        for user in self.users for device in range(1, devices + 1)]
        self.lock = threading.Lock()
        self.left = 0
        self.stopping = False
        self.refused = 0

    def take_one(self):
        with self.lock:
            taken = self.left > 0
            self.left -= taken
            return taken

    def give_one(self):
        with self.lock:
            self.left += 1

    def make_users(self, server):
        """A message to a user who has never logged in is refused: so all do, once."""
        for user in self.users:
            self.ledger.acked(user, 1, 0)
            server.login(user, 1).leave()

    def run(self, server, messages, timeout=120):
        """Until so many more messages are accepted, or the server ends; then `stop`."""
        self.left = messages
        self.stopping = False
        goal = len(self.ledger.accepted) + messages
        for device in self.devices:
            device.start(server)
        deadline = time.monotonic() + timeout
        while len(self.ledger.accepted) < goal and server.process.poll() is None:
            alive = [device for device in self.devices if device.thread.is_alive()]
            failures = [device.failure for device in self.devices if device.failure]
            assert not failures, failures
            assert alive, "all clients ended"
            assert time.monotonic() < deadline, f"{goal - len(self.ledger.accepted)} missing"
            time.sleep(0.005)

    def stop(self):
        self.stopping = True
        for device in self.devices:
            device.thread.join(ANSWER_TIMEOUT)
            assert not device.thread.is_alive()
        failures = [device.failure for device in self.devices if device.failure]
        assert not failures, failures


def read_all(server, users, device=1):
    """{user: entries of the log, from its floor}, as a client gets them."""
    logs = {}
    for user in users:
        with server.login(user, device) as client:
            client.wait_for(lambda client=client: client.seq >= client.hello["head"])
            logs[user] = client.entries
    return logs


def wait_for_streams(server, load, upto_ns, retention, timeout=60):
    """
    Reads until what was accepted before that instant is once in both logs, which it must be in the
    end: streams between users go on after a start. Returns what is missing.
    """
    deadline = time.monotonic() + timeout
    while True:
        logs = read_all(server, load.users)
        missing = missing_of(logs, load.ledger.accepted, upto_ns, retention)
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.05)


def missing_of(logs, accepted, upto_ns, retention):
    missing = []
    floors = {user: entries[0]["seq"] if entries else 1 for user, entries in logs.items()}
    counts = {}
    for user, entries in logs.items():
        for entry in entries:
            key = (user, entry["id"])
            counts[key] = counts.get(key, 0) + 1
    for at, user, device, counter, seq, message, peer in accepted:
        if at >= upto_ns:
            continue
        name = f"message {counter} of user {user}, device {device}"
        if seq >= floors[user]:
            entry = logs[user][seq - floors[user]] if seq - floors[user] < len(logs[user]) else None
            if entry is None or entry["id"] != message or counts[(user, message)] != 1:
                missing.append(f"{name}: not in its own log")
        if counts.get((peer, message), 0) != 1 and not (retention and floors[peer] > 1):
            missing.append(f"{name}: {counts.get((peer, message), 0)} times at user {peer}")
    return missing
