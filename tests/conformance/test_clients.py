#!/usr/bin/env python3
"""The clients of OpenSSL, GnuTLS and Go: each does with a server what it can.

    test_clients.py HOLDFASTD HOLDFAST_TOKEN CLIENT... (see peers.py)

What a library can't do is a skipped test, and must stand in peers.Peer.GAPS.
"""
import struct

import peers
import harness
import wire

NO_APPLICATION_PROTOCOL, PROTOCOL_VERSION = 120, 70


class Clients:
    """The tests of every library. A user for each, as none may be left by another."""

    LIBRARY = ""
    OPTIONS = {"tls_psk_ke": "true"}

    def setUp(self):
        self.peer = peers.Peer(self.LIBRARY, self.server.folder)
        self.addCleanup(self.peer.close)

    def connect(self, **options):
        """TLS alone."""
        return peers.Transport(self.server.address, self.peer, ca=self.keys.path("ca.pem"),
                               **options)

    def login(self, user=None, **options):
        user = user or self.new_user()
        return peers.Client(self.server.address, self.peer, user, 1, self.keys.token(user),
                            ca=self.keys.path("ca.pem"), **options)

    def refused(self, alert, **options):
        with self.assertRaises(peers.Refused) as caught:
            self.connect(**options)
        self.assertEqual(caught.exception.alert, alert, caught.exception)

    def handshakes(self, result):
        return self.server.metric("holdfast_handshakes_total", result=result)

    # ---- handshakes

    def test_full_handshake_carries_the_protocol(self):
        before = self.handshakes("full")
        with self.login() as client:
            self.assertFalse(client.info["resumed"])
            self.assertEqual((client.info["hellos"], client.info["alpn"]), (1, "holdfast/1"))
            client.ping()
            answer = client.wait_answer(client.send(client.user, b"to myself"))
            self.assertTrue(answer["accepted"])
        self.assertEqual(self.handshakes("full"), before + 1)

    def test_each_suite_is_spoken(self):
        for suite in ("aes128", "aes256", "chacha"):
            with self.login(suite=suite) as client:
                client.ping()

    def test_ticket_resumes_with_an_exchange_again_and_again(self):
        self.login().close()
        before = self.handshakes("resumed")
        for _ in range(3):  # each time by the ticket of the time before
            with self.login(resume=1) as client:
                self.assertTrue(client.info["resumed"])
                client.ping()
        self.assertEqual(self.handshakes("resumed"), before + 3)

    def test_ticket_resumes_without_an_exchange_where_the_client_wants_it(self):
        self.login(modes="ke").close()
        before = self.handshakes("resumed_psk_ke")
        for _ in range(2):
            with self.login(resume=1, modes="ke") as client:
                self.assertTrue(client.info["resumed"])
                client.ping()
        self.assertEqual(self.handshakes("resumed_psk_ke"), before + 2)

    def test_group_that_the_server_lacks_is_asked_for_again(self):
        with self.login(groups="hrr") as client:
            self.assertEqual(client.info["hellos"], 2)
            client.ping()

    def test_group_is_asked_for_again_on_resumption_too(self):
        self.login(groups="hrr").close()
        with self.login(groups="hrr", resume=1) as client:
            self.assertEqual((client.info["hellos"], client.info["resumed"]), (2, True))
            client.ping()

    def test_any_server_name_or_none_is_taken(self):
        for name in ("LOCALHOST", "p00042.chat.example", "x" * 60 + ".example", None):
            with self.subTest(name), self.login(sni=name) as client:
                client.ping()

    def test_ours_among_other_protocols_is_chosen(self):
        with self.login(alpn="h2,holdfast/1,http/1.1") as client:
            self.assertEqual(client.info["alpn"], "holdfast/1")
            client.ping()

    def test_wrong_or_missing_protocol_is_refused(self):
        for alpn in (None, "h2", "holdfast/2", "holdfast/1.1,holdfast"):
            with self.subTest(alpn):
                self.refused(NO_APPLICATION_PROTOCOL, alpn=alpn)
                self.refused(NO_APPLICATION_PROTOCOL, alpn=alpn, groups="hrr")

    def test_wrong_protocol_is_refused_on_resumption_too(self):
        self.login().close()
        self.refused(NO_APPLICATION_PROTOCOL, alpn="h2", resume=1)

    def test_tls_1_2_alone_is_refused(self):
        self.refused(PROTOCOL_VERSION, tls12=1)

    # ---- records

    def test_keys_are_updated_both_ways_at_any_time(self):
        with self.login() as client:
            for ask in "0101101":
                self.peer.do("update", ask)
                client.ping()
            for _ in range(8):  # several before a word: one answer will do
                self.peer.do("update", "1")
            client.ping()
            client.wait_answer(client.send(client.user, b"x" * 15000))
            client.ping()

    def test_key_update_before_hello_is_taken(self):
        client = self.connect()
        self.peer.do("update", "1")
        self.peer.do("update", "0")
        user = self.new_user()
        client.write_frame(wire.HELLO, wire.hello_payload(user, 1, self.keys.token(user)))
        client.expect(wire.HELLO_OK)
        client.close()

    def test_largest_records_are_carried_both_ways(self):
        with self.login() as client, self.server.login(self.new_user()) as friend:
            whole = (wire.frame(200, b"x" * 15996) + wire.frame(200, b"y" * 368)
                     + wire.frame(wire.PING, struct.pack(">Q", 77)))
            self.assertEqual(len(whole), 16384)
            for _ in range(3):
                client.write(whole)
                self.assertEqual(client.expect(wire.PONG), {"opaque": 77})
            bodies = [bytes([number]) * 15000 for number in range(5)]
            for body in bodies:
                friend.send(client.user, body)
            client.wait_entries(len(bodies))
            self.assertEqual([entry["body"] for entry in client.entries], bodies)

    def test_records_of_one_byte_are_put_together(self):
        user = self.new_user()
        client = self.connect()
        for byte in wire.frame(wire.HELLO, wire.hello_payload(user, 1, self.keys.token(user))):
            client.write(bytes([byte]))
        client.expect(wire.HELLO_OK)
        for byte in wire.frame(wire.PING, struct.pack(">Q", 5)):
            client.write(bytes([byte]))
        self.assertEqual(client.expect(wire.PONG), {"opaque": 5})
        client.close()

    def test_padding_is_taken_off(self):
        with self.login() as client:
            self.peer.do("pad", "512")
            for _ in range(3):
                client.ping()
            client.wait_answer(client.send(client.user, b"y" * 3000))

    # ---- ends

    def test_close_notify_and_fin_are_answered_after_what_was_asked(self):
        client = self.login()
        client.write_frame(wire.PING, struct.pack(">Q", 3))
        self.peer.do("close")
        self.peer.do("fin")
        self.assertEqual(client.expect(wire.PONG), {"opaque": 3})
        self.assert_closed(client)

    def test_close_notify_alone_is_answered(self):
        client = self.login()
        self.peer.do("close")
        self.assert_closed(client)

    def test_close_notify_before_hello_is_answered(self):
        client = self.connect()
        self.peer.do("close")
        self.peer.do("fin")
        self.assert_closed(client)

    def test_end_without_close_notify_ends_the_connection(self):
        for connect in (self.login, self.connect):
            client = connect()
            self.peer.do("fin")
            with self.assertRaises(wire.Closed):
                client.read_frame()
            client.close()

    def test_bye_is_answered_by_close_notify(self):
        client = self.login()
        client.write_frame(wire.BYE)
        self.assert_closed(client)

    def assert_closed(self, client):
        with self.assertRaises(wire.Closed) as caught:
            client.read_frame()
        self.assertEqual(str(caught.exception), "closed")
        client.close()


class OpenSSL(Clients, harness.ServerTest):
    LIBRARY = "openssl"


class GnuTLS(Clients, harness.ServerTest):
    LIBRARY = "gnutls"


class Go(Clients, harness.ServerTest):
    LIBRARY = "go"


if __name__ == "__main__":
    peers.main()
