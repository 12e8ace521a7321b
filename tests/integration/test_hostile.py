#!/usr/bin/env python3
"""Hostile and unlucky clients: garbage, floods, silence, crowds. The server outlives all of them.

    test_hostile.py HOLDFASTD HOLDFAST_TOKEN
"""
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import harness
import wire
from wire import frame


class Garbage(harness.ServerTest):
    def tearDown(self):
        client = self.login(self.new_user())  # it still serves
        client.ping()
        client.leave()

    def raw(self, data, half_close=False):
        """Sends bytes that are no TLS; returns what comes until the end."""
        with socket.create_connection(self.server.address, timeout=wire.TIMEOUT) as connection:
            try:
                connection.sendall(data)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
                got = b""
                while chunk := connection.recv(4096):
                    got += chunk
                return got
            except ConnectionError:
                return None

    def test_bytes_that_are_no_tls_end_by_an_alert(self):
        rows = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 100,
                b"\xff" * 5000, b"\x16\x03\x01\xff\xff" + b"\x01" * 100,
                b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x17\x03\x03\x00\x10" + b"x" * 16,
                b"\x15\x03\x03\x00\x02\x02\x28", b"\x14\x03\x03\x00\x01\x01"]
        for data in rows:
            with self.subTest(data[:20]):
                self.raw(data, half_close=True)
        self.assertTrue(self.raw(rows[0]).startswith(b"\x15\x03"))  # an alert

    def test_random_bytes_end_their_connection_alone(self):
        chance = random.Random(7)
        for _ in range(60):
            self.raw(chance.randbytes(chance.randrange(1, 3000)), half_close=True)
        self.server.wait_metric("holdfast_handshakes_in_progress", 0)

    def test_client_hello_with_any_byte_changed_is_survived(self):
        outgoing = ssl.MemoryBIO()
        tls = self.server.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        chance = random.Random(8)
        for _ in range(80):
            broken = bytearray(hello)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            self.raw(bytes(broken), half_close=True)

    def test_broken_record_after_login_ends_by_an_alert(self):
        for data in (b"\x17\x03\x03\x00\x20" + b"x" * 32, b"\x16\x03\x03\x00\x05hello",
                     b"\x17\x03\x03\xff\xff", b"\x99" * 50, b"\x14\x03\x03\x00\x01\x01"):
            with self.subTest(data[:5]):
                client = self.login(self.new_user())
                os.write(client.socket.fileno(), data)
                with self.assertRaises((ssl.SSLError, wire.Closed)):
                    client.read_frame()
        self.assertGreaterEqual(self.server.metric("holdfast_tls_faults_total"), 5)

    def test_broken_record_before_hello_ends_by_an_alert(self):
        before = self.server.metric("holdfast_door_tls_faults_total")
        connection = self.connect()
        os.write(connection.socket.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with self.assertRaises((ssl.SSLError, wire.Closed)):
            connection.read_frame()
        self.assertEqual(self.server.metric("holdfast_door_tls_faults_total"), before + 1)

    def test_frames_that_break_the_rules_end_the_connection(self):
        rows = [
            ("too large", b"\x00\x3e\x7d\x10", "FRAME_TOO_LARGE"),
            ("a second HELLO", frame(wire.HELLO, b"x"), "UNEXPECTED"),
            ("a server's frame", frame(wire.ACCEPTED, b"\0" * 24), "UNEXPECTED"),
            ("cut SEND", frame(wire.SEND, b"\0" * 10), "BAD_FRAME"),
            ("cut PING", frame(wire.PING, b"\0" * 7), "BAD_FRAME"),
            ("counter 0", frame(wire.SEND, wire.send_payload(0, b"n" * 16, 5, b"")), "BAD_FIELD"),
            ("trailing byte", frame(wire.PING, b"\0" * 9), "BAD_FRAME"),
            ("critical TLV", frame(wire.PING, b"\0" * 8 + wire.tlv(2, b"")), "UNSUPPORTED_TLV"),
            ("BYE with a cut TLV", frame(wire.BYE, b"\1\0"), "BAD_FRAME"),
            ("empty TOKEN", frame(wire.TOKEN, b""), "BAD_FRAME"),
        ]
        for name, data, code in rows:
            with self.subTest(name):
                client = self.login(self.new_user())
                client.write(data)
                self.assertEqual(client.wait_end(), code)

    def test_random_frames_after_login_are_survived(self):
        chance = random.Random(9)
        for _ in range(40):
            client = self.login(self.new_user())
            try:
                for _ in range(20):
                    kind = chance.choice((2, 3, 5, 6, 9, 16, 17, 21, 33, 34, 40, 130, 255))
                    client.write(frame(kind, chance.randbytes(chance.choice((0, 4, 8, 16, 27, 40)))))
                client.write_frame(wire.BYE)
                client.wait_end()
            except (OSError, wire.Closed):
                pass
            client.close()


class Crowds(harness.ServerTest):
    OPTIONS = {"max_connections": 16, "cores": 1, "handshakes_max": 8,
               "handshake_timeout_ms": 20000}

    def tearDown(self):
        self.server.wait_metric("holdfast_connections", 0)

    def login_here(self, user):
        client = self.server.login(user)
        return client

    def test_more_clients_than_places_are_told_busy(self):
        clients = [self.login_here(self.new_user()) for _ in range(16)]
        for _ in range(3):
            user = self.new_user()
            connection = self.connect()
            connection.write_frame(wire.HELLO, wire.hello_payload(user, 1, self.keys.token(user)))
            error = connection.expect_error("BUSY")
            self.assertGreater(error["retry_ms"], 0)
        for client in clients:
            client.ping()
        clients.pop().leave()
        self.server.wait_metric("holdfast_connections", 15)
        clients.append(self.login_here(self.new_user()))
        for client in clients:
            client.leave()
        self.assertGreaterEqual(
            self.server.metric("holdfast_limit_hits_total", limit="max_connections"), 3)

    def test_silent_sockets_beyond_the_bound_do_not_keep_clients_out_for_ever(self):
        # Eight places for handshakes are taken by sockets that say nothing; forty more wait.
        silent = [socket.create_connection(self.server.address) for _ in range(48)]
        self.server.wait_metric("holdfast_handshakes_in_progress", 8)
        outcome = []
        user = self.new_user()

        def late():
            client = self.server.login(user)
            outcome.append(client)

        thread = threading.Thread(target=late)
        thread.start()
        for connection in silent:
            connection.close()
        thread.join(wire.TIMEOUT)
        self.assertTrue(outcome)
        outcome[0].ping()
        outcome[0].leave()
        self.assertGreater(
            self.server.metric("holdfast_limit_hits_total", limit="handshakes_max"), 0)
        self.server.wait_metric("holdfast_handshakes_in_progress", 0)

    def test_fifty_clients_at_once_all_get_an_answer(self):
        answers = []

        def visit(user):
            try:
                client = self.server.login(user)
                client.ping()
                client.leave()
                answers.append("in")
            except AssertionError as error:
                answers.append("BUSY" if "BUSY" in str(error) else str(error))
            except (OSError, wire.Closed) as error:
                answers.append(repr(error))

        threads = [threading.Thread(target=visit, args=(self.new_user(),)) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers), 50)
        self.assertLessEqual(set(answers), {"in", "BUSY"}, answers)


class Addresses(harness.ServerTest):
    OPTIONS = {"connections_per_address_max": 4, "cores": 1}

    def test_address_beyond_its_bound_is_closed_and_others_are_not(self):
        mine = [self.server.login(self.new_user(), source="127.0.0.2") for _ in range(4)]
        with self.assertRaises((OSError, wire.Closed)):
            self.server.login(self.new_user(), source="127.0.0.2")
        other = self.server.login(self.new_user(), source="127.0.0.3")
        mine.pop().leave()
        self.server.wait_metric("holdfast_connections", 4)
        deadline = time.monotonic() + wire.TIMEOUT
        while True:  # the door hears of it a little later
            try:
                mine.append(self.server.login(self.new_user(), source="127.0.0.2"))
                break
            except (OSError, wire.Closed):
                self.assertLess(time.monotonic(), deadline)
        for client in mine + [other]:
            client.leave()
        self.assertGreater(
            self.server.metric("holdfast_limit_hits_total", limit="connections_per_address"), 0)


class Rates(harness.ServerTest):
    OPTIONS = {"frames_per_s_max": 20, "bytes_per_s_max": 16384, "keepalive_s": 5}

    def test_too_many_frames_end_the_connection(self):
        client = self.login(self.new_user())
        try:
            for _ in range(400):
                client.write_frame(wire.PONG, struct.pack(">Q", 1))
        except OSError:
            pass
        self.assertEqual(client.wait_end(), "BUSY")

    def test_too_many_bytes_end_the_connection(self):
        client = self.login(self.new_user())
        try:
            for _ in range(40):
                client.write_frame(200, b"x" * 15000)
        except OSError:
            pass
        try:
            self.assertEqual(client.wait_end(), "BUSY")
        except (ConnectionError, ssl.SSLError):
            pass  # what was still unread when it closed may have reset the connection
        self.assertGreater(
            self.server.metric("holdfast_limit_hits_total", limit="bytes_per_s"), 0)

    def test_silent_client_is_ended_as_idle(self):
        client = self.login(self.new_user())
        began = time.monotonic()
        self.assertEqual(client.wait_end(), "IDLE")
        self.assertGreater(time.monotonic() - began, 9)

    def test_reader_that_stops_costs_the_others_nothing(self):
        slow_user, fast_user = self.new_user(), self.new_user()
        slow = self.login(slow_user, window=1048576)
        senders = [self.login(self.new_user()) for _ in range(3)]
        fast = self.login(fast_user)
        for sender in senders:
            for _ in range(8):
                sender.send(slow_user, b"x" * 15000)
                sender.send(fast_user, b"y")
            sender.wait_for(lambda sender=sender: len(sender.answers) == 16)
        fast.wait_entries(24)
        slow.wait_entries(24)


HALF_RECORD = b"\x17\x03\x03\x40\x00" + b"x"  # promises 16 KB, and brings one byte


class Partials(harness.ServerTest):
    OPTIONS = {"partial_timeout_s": 2, "cores": 1}

    def test_record_that_is_begun_and_not_ended_ends_its_connection(self):
        client = self.login(self.new_user())
        began = time.monotonic()
        os.write(client.socket.fileno(), HALF_RECORD)
        self.assertEqual(client.wait_end(), "IDLE")
        self.assertLess(1.9, time.monotonic() - began)
        self.assertGreater(self.server.metric("holdfast_limit_hits_total", limit="partial_timeout"),
                           0)

    def test_byte_now_and_then_does_not_prolong_it(self):
        client = self.login(self.new_user())
        os.write(client.socket.fileno(), HALF_RECORD)
        began = time.monotonic()
        ended = threading.Event()

        def trickle():
            while not ended.wait(0.1):
                try:
                    os.write(client.socket.fileno(), b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        self.assertEqual(client.wait_end(), "IDLE")
        ended.set()
        thread.join()
        self.assertLess(time.monotonic() - began, 10)

    def test_many_half_records_of_one_user_leave_others_alone(self):
        user = self.new_user()
        hostile = [self.login(user, device=device) for device in range(1, 15)]
        good = self.login(self.new_user())
        for client in hostile:
            os.write(client.socket.fileno(), HALF_RECORD)
        good.ping()
        good.send(good.user, b"x" * 15000)  # notes of its own: a large record, in several pieces
        good.wait_entries(1)
        for client in hostile:
            self.assertEqual(client.wait_end(), "IDLE")


PROXY = bytes.fromhex("0d0a0d0a000d0a515549540a")


def proxied(address, command=0x21, family=0x11):
    """A header that says the client is at that IPv4 address."""
    addresses = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 9, 9)
    return PROXY + bytes([command, family]) + struct.pack(">H", len(addresses)) + addresses


class Proxies(harness.ServerTest):
    OPTIONS = {"proxy_from": "127.0.0.2, 127.0.1.0/24", "cores": 1,
               "connections_per_address_max": 2, "handshake_timeout_ms": 3000}

    def refuse(self, **options):
        with self.assertRaises((OSError, wire.Closed)):
            self.login(self.new_user(), **options)

    def test_listed_proxy_s_word_counts_for_limits_and_logs(self):
        clients = [self.login(self.new_user(), source="127.0.0.2", before=proxied("192.0.2.1"))
                   for _ in range(2)]
        self.refuse(source="127.0.0.2", before=proxied("192.0.2.1"))
        self.refuse(source="127.0.1.9", before=proxied("192.0.2.1"))
        clients.append(self.login(self.new_user(), source="127.0.1.9", before=proxied("192.0.2.2")))
        user = self.new_user()
        connection = self.connect(source="127.0.0.2", before=proxied("192.0.2.3"))
        connection.write_frame(wire.HELLO, wire.hello_payload(user, 1, b"no token"))
        connection.expect_error("BAD_TOKEN")
        self.server.wait_line(f"event=token_refused .*user={user} .*address=192.0.2.3:9 ")
        for client in clients:
            client.leave()

    def test_header_may_come_byte_by_byte_and_its_end_with_the_client_s_first_bytes(self):
        header = proxied("192.0.2.4")
        raw = socket.socket()
        self.addCleanup(raw.close)
        raw.bind(("127.0.0.2", 0))
        raw.connect(self.server.address)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header[:-1]:
            raw.sendall(bytes([byte]))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.server.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        raw.sendall(header[-1:] + outgoing.read())
        raw.settimeout(wire.TIMEOUT)
        self.assertEqual(raw.recv(1), b"\x16")  # a ServerHello

    def test_proxy_s_own_connections_have_no_bound(self):
        for before in (PROXY + b"\x20\x00\x00\x00", PROXY + b"\x21\x00\x00\x00",
                       proxied("192.0.2.1", command=0x20)):
            for _ in range(3):
                self.login(self.new_user(), source="127.0.0.2", before=before).ping()

    def test_listed_proxy_without_a_good_header_is_closed(self):
        bad = self.server.metric("holdfast_proxy_headers_total", result="bad")
        rows = [b"", b"PROXY TCP4 192.0.2.1 127.0.0.1 9 9\r\n", proxied("192.0.2.1", command=0x31),
                PROXY + b"\x21\x11\x00\x04abcd", proxied("192.0.2.1", family=0x12)]
        for before in rows:
            with self.subTest(before[:20]):
                self.refuse(source="127.0.0.2", before=before)
        self.assertEqual(self.server.metric("holdfast_proxy_headers_total", result="bad"),
                         bad + len(rows))

    def test_header_of_a_stranger_ends_its_connection_and_says_nothing(self):
        for _ in range(3):
            self.refuse(before=proxied("192.0.2.9"))
        clients = [self.login(self.new_user(), source="127.0.0.2", before=proxied("192.0.2.9"))
                   for _ in range(2)]  # nothing was counted for that address
        for client in clients:
            client.leave()

    def test_listed_proxy_that_says_nothing_is_closed_in_time(self):
        with socket.create_connection(self.server.address, source_address=("127.0.0.2", 0)) as raw:
            raw.settimeout(wire.TIMEOUT)
            raw.sendall(PROXY[:5])
            self.assertEqual(raw.recv(1), b"")


ATTACK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hostile/attack.py")
FEW = {"half_records": 40, "half_large": 20, "slow_handshake": 20, "half_open": 40, "no_read": 8}


class Attacks(harness.ServerTest):
    """Every attack of tests/hostile at once, in small. In large, and with figures: scripts/bench."""

    OPTIONS = {"partial_timeout_s": 2, "handshake_timeout_ms": 2000, "frames_per_s_max": 500,
               "bytes_per_s_max": 65536}

    def attack(self, kind, first_user):
        process = subprocess.Popen(
            [sys.executable, ATTACK, kind, "%s:%d" % self.server.address[:2],
             self.keys.path("ca.pem"), self.keys.path("login.jwks"), str(FEW.get(kind, 3)),
             str(first_user)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_good_clients_lose_nothing_while_every_attack_goes_on(self):
        kinds = subprocess.run([sys.executable, ATTACK, "--list"], check=True, text=True,
                               stdout=subprocess.PIPE).stdout.split()
        one, other = (self.login(self.new_user()) for _ in range(2))
        attacks = {kind: self.attack(kind, 5000000 + 1000 * i) for i, kind in enumerate(kinds)}
        for kind, process in attacks.items():
            self.assertIn(b"on", process.stdout.readline(), kind)
        began = time.monotonic()
        sent = 0
        # Until each limit was hit too: how soon that is depends on the machine.
        while time.monotonic() - began < (4 if all(self.hits().values()) else 60):
            for sender, receiver in ((one, other), (other, one)):
                counter = sender.send(receiver.user, b"m" * 100)
                self.assertTrue(sender.wait_answer(counter)["accepted"])
                sent += 1
        for client in (one, other):
            client.wait_entries(sent)
            client.ping()
        for kind, process in attacks.items():
            self.assertIsNone(process.poll(), f"{kind}: the attack has ended")
        self.assertTrue(all(self.hits().values()), self.hits())

    def hits(self):
        return {limit: self.server.metric("holdfast_limit_hits_total", limit=limit)
                for limit in ("partial_timeout", "frames_per_s", "bytes_per_s")}


if __name__ == "__main__":
    harness.main()
