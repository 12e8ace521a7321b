#!/usr/bin/env python3
"""Tickets that a server should take, and tickets that it can't: those mean a full handshake, never
a failure. By the clients of OpenSSL, GnuTLS and Go.

    test_tickets.py HOLDFASTD HOLDFAST_TOKEN CLIENT... (see peers.py)
"""
import os
import tempfile
import unittest

import peers
import harness

HOUR = 3600


class Tickets:
    """The tests of every library. `node` and `twin` have one file of ticket keys, `other` its own."""

    LIBRARY = ""

    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)
        shared = os.path.join(cls.keys.folder, "ticket-keys")
        cls.clock = peers.Clock(os.path.join(cls.keys.folder, "server.clock"))
        cls.node = cls.start(environment=cls.clock.environment(), ticket_keys=shared,
                             tls_psk_ke="true")
        cls.twin = cls.start(ticket_keys=shared)
        cls.other = cls.start()

    @classmethod
    def start(cls, environment=None, **options):
        server = harness.Server(cls.keys, cores=1, **options)
        server.environment = environment
        cls.addClassCleanup(server.close)
        return server.start()

    def setUp(self):
        folder = tempfile.mkdtemp(dir=self.keys.folder)
        self.peer = peers.Peer(self.LIBRARY, folder)
        self.addCleanup(self.peer.close)

    def visit(self, server, server_ahead=0, **options):
        """Logs in and talks; whether the session was resumed."""
        token = self.keys.token(1001, ttl=HOUR + server_ahead)
        with peers.Client(server.address, self.peer, 1001, 1, token, ca=self.keys.path("ca.pem"),
                          **options) as client:
            client.ping()
            return client.info["resumed"]

    def test_garbled_ticket_means_a_full_handshake(self):
        for place in (0, 15, 16, 27, 28, 40, 100, -17, -1):  # name, nonce, state, tag
            with self.subTest(place):
                self.visit(self.node)
                self.assertFalse(self.visit(self.node, resume=1, garble=place))
                self.assertTrue(self.visit(self.node, resume=1))  # by the new one

    def test_ticket_of_a_node_with_the_same_key_file_resumes(self):
        self.visit(self.node)
        self.assertTrue(self.visit(self.twin, resume=1))
        self.assertTrue(self.visit(self.node, resume=1))

    def test_ticket_of_a_node_with_other_keys_means_a_full_handshake(self):
        self.visit(self.node)
        self.assertFalse(self.visit(self.other, resume=1))
        self.assertTrue(self.visit(self.other, resume=1))
        self.assertFalse(self.visit(self.node, resume=1))

    def test_ticket_resumes_after_the_server_was_killed_or_stopped(self):
        self.visit(self.node)
        for end in (self.node.kill, self.node.stop):
            end()
            self.node.start()
            self.assertTrue(self.visit(self.node, resume=1))

    def test_ticket_of_lost_keys_means_a_full_handshake(self):
        server = self.start()
        self.visit(server)
        server.stop()
        os.unlink(os.path.join(server.data, "ticket-keys"))
        server.start()
        self.assertFalse(self.visit(server, resume=1))
        self.assertTrue(self.visit(server, resume=1))

    # (seconds that the server's clock moves on after the ticket, the client's, resumed)
    MOVES = [
        (0, 0, True),
        (2, 0, True),          # tolerated
        (0, 2, True),
        (HOUR, 0, False),      # the ticket's age isn't what the client says
        (0, HOUR, False),
        (-HOUR, 0, False),     # a ticket from the future
        (-HOUR, -HOUR, False),
        (HOUR, HOUR, True),    # an hour has passed for both
        (23 * HOUR, 23 * HOUR, True),
        (25 * HOUR, 25 * HOUR, False),  # expired: the client doesn't even offer it
        (25 * HOUR, 0, False),          # expired, and the client doesn't know
        (25 * HOUR, 24 * HOUR - 60, False),
    ]

    def moved(self, **options):
        self.addCleanup(self.clock.move, 0)
        for server_ahead, client_ahead, resumed in self.MOVES:
            with self.subTest((server_ahead / HOUR, client_ahead / HOUR)):
                self.clock.move(0)
                self.assertFalse(self.visit(self.node, **options))
                self.clock.move(server_ahead)
                self.assertEqual(self.visit(self.node, max(0, server_ahead), resume=1,
                                            ahead=client_ahead, **options), resumed)

    def test_clock_that_moves_means_a_full_handshake_at_worst(self):
        self.moved()

    def test_clock_that_moves_under_psk_ke_means_a_full_handshake_at_worst(self):
        self.peer.need("modes")
        self.moved(modes="ke")

    def test_client_that_wants_no_exchange_where_there_must_be_one_shakes_hands_in_full(self):
        self.visit(self.twin, modes="ke")
        self.assertFalse(self.visit(self.twin, resume=1, modes="ke"))

    def test_client_that_wants_an_exchange_after_one_without_is_taken(self):
        self.visit(self.node, modes="ke")
        self.visit(self.node, resume=1, modes="ke")
        self.visit(self.node, resume=1)  # whether it resumes is the ticket's affair

    def test_session_of_a_suite_that_is_not_offered_any_more_is_taken(self):
        self.peer.need("suite")
        for before, now, resumed in (("aes128", "chacha", True), ("chacha", "aes128", True),
                                     ("aes128", "aes256", False), ("aes256", "aes128", False)):
            with self.subTest((before, now)):
                self.visit(self.node, suite=before)
                self.assertEqual(self.visit(self.node, resume=1, suite=now), resumed)


class OpenSSL(Tickets, unittest.TestCase):
    LIBRARY = "openssl"


class GnuTLS(Tickets, unittest.TestCase):
    LIBRARY = "gnutls"


class Go(Tickets, unittest.TestCase):
    LIBRARY = "go"


if __name__ == "__main__":
    peers.main()
