#!/usr/bin/env python3
"""Logging in: tokens, TLS, HELLO in every shape, and what is refused.

    test_login.py HOLDFASTD HOLDFAST_TOKEN
"""
import os
import socket
import ssl
import struct
import time
import unittest

import harness
import wire
from wire import frame, hello_payload, tlv


class Login(harness.ServerTest):
    OPTIONS = {"listen": "127.0.0.1:0,[::1]:0" if harness.has_ipv6() else "127.0.0.1:0"}

    def refused(self, payload, name, kind=wire.HELLO):
        connection = self.connect()
        connection.write_frame(kind, payload)
        return connection.expect_error(name)

    def test_first_login_creates_the_user(self):
        user = self.new_user()
        client = self.login(user)
        hello = client.hello
        self.assertEqual((hello["head"], hello["floor"], hello["last_counter"]), (0, 1, 0))
        self.assertEqual(hello["result"], wire.RESET)
        self.assertNotEqual(hello["epoch"], 0)
        self.assertLess(abs(hello["time"] / 1000 - time.time()), 120)
        self.assertEqual((hello["keepalive_s"], hello["life_s"]), (270, 604800))
        self.assertEqual((hello["frame_bytes_max"], hello["body_bytes_max"]), (16000, 15000))
        self.assertEqual((hello["sends_outstanding"], hello["requests_outstanding"]), (32, 4))
        self.assertEqual(len(hello["resume_token"]), 64)
        client.leave()

    def test_es256_token_is_taken(self):
        user = self.new_user()
        client = self.login(user, 3, self.keys.es256_token(user, 3))
        self.assertEqual(client.hello["head"], 0)

    def test_resume_token_is_taken_instead(self):
        user = self.new_user()
        first = self.login(user)
        again = self.login(user, 1, first.hello["resume_token"], cursor=first.cursor)
        self.assertEqual(again.hello["result"], wire.RESUME)
        self.assertEqual(again.hello["epoch"], first.epoch)
        self.assertLessEqual(again.hello["life_s"], 604800)
        self.assertEqual(first.wait_end(), "REPLACED")

    def test_resume_token_of_another_is_refused(self):
        user = self.new_user()
        token = self.login(user).hello["resume_token"]
        self.refused(hello_payload(user, 2, token), "BAD_TOKEN")
        self.refused(hello_payload(user + 500000, 1, token), "BAD_TOKEN")
        for place in (0, 3, 11, 15, 19, 27, 31, 32, 63):
            broken = bytearray(token)
            broken[place] ^= 1
            self.refused(hello_payload(user, 1, bytes(broken)), "BAD_TOKEN")
        self.refused(hello_payload(user, 1, token[:63]), "BAD_TOKEN")

    def test_bad_login_tokens_are_refused_and_say_why(self):
        user = self.new_user()
        good = self.keys.token(user)
        header, claims, signature = good.split(b".")
        rows = [
            ("garbage", b"hello", "BAD_TOKEN"),
            ("two parts", header + b"." + claims, "BAD_TOKEN"),
            ("another secret", self.keys.token(user, secret=b"x" * 32), "BAD_TOKEN"),
            ("unknown key", self.keys.token(user, kid="other"), "BAD_TOKEN"),
            ("alg of another key", self.keys.token(user, kid="es"), "BAD_TOKEN"),
            ("no alg", harness.encode(b'{"alg":"none","kid":"hs"}') + b"." + claims + b".",
             "BAD_TOKEN"),
            ("changed signature", header + b"." + claims + b"." + signature[:-2] + b"AA",
             "BAD_TOKEN"),
            ("another user", self.keys.token(user + 1), "BAD_TOKEN"),
            ("another device", self.keys.token(user, 2), "BAD_TOKEN"),
            ("another audience", self.keys.token(user, aud="elsewhere"), "BAD_TOKEN"),
            ("expired", self.keys.token(user, ttl=-3600), "TOKEN_EXPIRED"),
            ("not yet", self.keys.token(user, nbf=int(time.time()) + 3600), "BAD_TOKEN"),
            ("too long ahead", self.keys.token(user, ttl=10 ** 9), "BAD_TOKEN"),
            ("4,096 bytes", b"e" * 4096, "BAD_TOKEN"),
        ]
        for name, token, code in rows:
            with self.subTest(name):
                error = self.refused(hello_payload(user, 1, token), code)
                self.assertTrue(error["text"])
        self.server.wait_line(r"event=token_refused .*reason=unknown_key")

    def test_alpn_is_demanded(self):
        for alpn in ((), ("http/1.1",), ("holdfast/2", "h2")):
            with self.subTest(alpn), self.assertRaises(ssl.SSLError) as caught:
                self.connect(context=wire.tls_context(self.keys.path("ca.pem"), alpn)).read_frame()
            self.assertIn("NO_APPLICATION_PROTOCOL", str(caught.exception).upper().replace(" ", "_"))
        self.connect(context=wire.tls_context(self.keys.path("ca.pem"), ("h2", "holdfast/1")))

    def test_older_tls_is_refused(self):
        context = wire.tls_context(self.keys.path("ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.assertRaises(ssl.SSLError):
            self.connect(context=context)

    def test_tls_session_is_resumed_by_ticket(self):
        user = self.new_user()
        client = self.login(user)
        before = self.server.metric("holdfast_handshakes_total", result="resumed")
        again = self.login(user, 2, session=client.socket.session)
        self.assertTrue(again.socket.session_reused)
        self.assertEqual(self.server.metric("holdfast_handshakes_total", result="resumed"),
                         before + 1)

    @unittest.skipUnless(harness.has_ipv6(), "no IPv6 here")
    def test_ipv6_is_served(self):
        self.assertEqual(self.server.addresses[1][0], "::1")
        self.login(self.new_user(), address=self.server.addresses[1])

    def test_hello_must_come_first(self):
        self.refused(b"", "HELLO_EXPECTED", wire.BYE)
        self.refused(struct.pack(">Q", 1), "HELLO_EXPECTED", wire.PING)
        self.refused(b"", "HELLO_EXPECTED", 200)
        connection = self.connect()
        connection.write(b"\x00\x10\x00\x10")  # a SEND's header is enough
        connection.expect_error("HELLO_EXPECTED")

    def test_hello_that_breaks_a_rule_is_refused(self):
        user = self.new_user()
        token = self.keys.token(user)
        good = hello_payload(user, 1, token)
        rows = [
            ("another version", hello_payload(user, 1, token, version=2), "VERSION"),
            ("version alone", b"\x00\x02", "VERSION"),
            ("cut short", good[:40], "BAD_FRAME"),
            ("no token", good[:59], "BAD_FRAME"),
            ("token cut", good[:-1], "BAD_FRAME"),
            ("user 0", hello_payload(0, 1, token), "BAD_FIELD"),
            ("a group", hello_payload(1 << 63, 1, token), "BAD_FIELD"),
            ("device 0", hello_payload(user, 0, token), "BAD_FIELD"),
            ("a reserved mode", hello_payload(user, 1, token, mode=1), "BAD_FIELD"),
            ("an unknown critical TLV", hello_payload(user, 1, token, extra=tlv(4, b"x")),
             "UNSUPPORTED_TLV"),
            ("a name with a newline", hello_payload(user, 1, token, extra=tlv(1, b"a\nb")),
             "BAD_FIELD"),
        ]
        for name, payload, code in rows:
            with self.subTest(name):
                connection = self.connect()
                connection.write_frame(wire.HELLO, payload)
                error = connection.expect(wire.ERROR)
                if name in ("no token",):  # which code isn't said by the document
                    self.assertEqual(error["fatal"], 1)
                else:
                    self.assertEqual(error["name"], code)
                connection.expect_end()
        self.login(user)

    def test_optional_tlvs_of_hello_are_passed_over(self):
        user = self.new_user()
        connection = self.connect()
        connection.write_frame(wire.HELLO, hello_payload(
            user, 1, self.keys.token(user), extra=tlv(1, "tests/1 äöü".encode()) + tlv(77, b"x" * 9000)))
        connection.expect(wire.HELLO_OK)

    def test_frame_too_large_is_refused_by_its_length(self):
        connection = self.connect()
        connection.write(b"\x00\x3e\x7d")  # 15,997 bytes of payload: one too many
        connection.expect_error("FRAME_TOO_LARGE")

    def test_hello_in_pieces_is_put_together(self):
        user = self.new_user()
        whole = frame(wire.HELLO, hello_payload(user, 1, self.keys.token(user)))
        for size in (1, 3, 100):
            with self.subTest(size):
                connection = self.connect()
                for at in range(0, len(whole), size):
                    connection.write(whole[at:at + size])  # a record each
                connection.expect(wire.HELLO_OK)

    def test_what_stands_behind_hello_is_handled_after_it(self):
        user = self.new_user()
        first = wire.send_payload(1, os.urandom(16), user, b"one")
        second = wire.send_payload(2, os.urandom(16), user, b"x" * 9000)
        third = wire.send_payload(3, os.urandom(16), user, b"three")
        behind = frame(wire.SEND, first) + frame(wire.SEND, second) + frame(wire.SEND, third)
        hello = frame(wire.HELLO, hello_payload(user, 1, self.keys.token(user)))
        for name, parts in [("one record", [hello + behind]),
                            ("cut in HELLO", [hello[:50], hello[50:] + behind]),
                            ("cut behind", [hello + behind[:30], behind[30:7000], behind[7000:]]),
                            ("record by record", [hello, behind])]:
            with self.subTest(name):
                connection = self.connect()
                for part in parts:
                    connection.write(part)
                connection.expect(wire.HELLO_OK)
                answered = set()
                while len(answered) < 3:
                    kind, fields = connection.read_frame()
                    if kind == wire.ACCEPTED:
                        answered.add(fields["counter"])
                self.assertEqual(answered, {1, 2, 3})

    def test_client_that_leaves_at_once_leaves_nothing(self):
        for _ in range(20):
            self.connect().close()
        for _ in range(20):
            connection = self.connect()
            user = self.new_user()
            connection.write_frame(wire.HELLO, hello_payload(user, 1, self.keys.token(user)))
            connection.close()
        self.server.wait_metric("holdfast_handshakes_in_progress", 0)

    def test_token_prolongs_a_login(self):
        user = self.new_user()
        client = self.login(user)
        for token in (client.hello["resume_token"], self.keys.token(user),
                      self.keys.es256_token(user)):
            client.write_frame(wire.TOKEN, struct.pack(">I", 0) + tlv(2, token))
            client.wait_for(lambda: client.others)
            kind, fields = client.others.pop()
            self.assertEqual(kind, wire.TOKEN)
            self.assertGreater(fields["life_s"], 604000)
        self.login(user, 1, fields["token"]).leave()

    def test_token_of_another_ends_the_login(self):
        user = self.new_user()
        for token, name in ((self.keys.token(user + 1), "BAD_TOKEN"), (b"\x07" * 64, "BAD_TOKEN"),
                            (self.keys.token(user, ttl=-3600), "TOKEN_EXPIRED"),
                            (self.keys.es256_token(user, 9), "BAD_TOKEN")):
            client = self.login(user)
            client.write_frame(wire.TOKEN, struct.pack(">I", 0) + tlv(2, token))
            self.assertEqual(client.wait_end(), name)


class Deadlines(harness.ServerTest):
    OPTIONS = {"handshake_timeout_ms": 1500, "handshakes_max": 64}

    def test_late_hello_is_told_so(self):
        began = time.monotonic()
        connection = self.connect()
        connection.expect_error("HELLO_EXPECTED")
        self.assertGreater(time.monotonic() - began, 1.0)

    def test_hello_by_the_drop_is_late_too(self):
        user = self.new_user()
        whole = frame(wire.HELLO, hello_payload(user, 1, self.keys.token(user)))
        connection = self.connect()
        ended = False
        for byte in whole[:-1]:
            try:
                connection.write(bytes([byte]))
                connection.socket.settimeout(0.05)
                if connection.socket.recv(1000) or True:
                    ended = True
                    break
            except TimeoutError:
                continue
            except OSError:
                ended = True
                break
        self.assertTrue(ended)

    def test_silent_socket_is_closed(self):
        with socket.create_connection(self.server.address, timeout=wire.TIMEOUT) as raw:
            self.assertEqual(raw.recv(100), b"")

    def test_handshake_by_the_drop_is_closed(self):
        outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.server.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        before = self.server.metric("holdfast_handshakes_total", result="timeout")
        with socket.create_connection(self.server.address, timeout=wire.TIMEOUT) as raw:
            raw.settimeout(0.05)
            ended = False
            for byte in hello[:-1]:
                try:
                    raw.send(bytes([byte]))
                    ended = raw.recv(100) == b""
                    break
                except TimeoutError:
                    continue
                except OSError:
                    ended = True
                    break
            self.assertTrue(ended)
        self.server.wait_metric("holdfast_handshakes_total", before + 1, result="timeout")


if __name__ == "__main__":
    harness.main()
