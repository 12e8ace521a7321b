#!/usr/bin/env python3
"""Certificates that change under load: new connections see the new one, old ones go on.

    test_reload.py HOLDFASTD HOLDFAST_TOKEN CLIENT... (see peers.py)
"""
import hashlib
import shutil
import signal
import ssl
import threading
import time
import unittest

import peers
import harness
import wire

LIBRARIES = ("openssl", "gnutls", "go")


def fingerprint(path):
    with open(path, encoding="ascii") as file:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()


class Load(threading.Thread):
    """Somebody who talks all the time, on one connection or on a new one each time."""

    def __init__(self, work):
        super().__init__()
        self.work, self.over, self.rounds, self.failure = work, threading.Event(), 0, None

    def run(self):
        try:
            while not self.over.is_set():
                self.work()
                self.rounds += 1
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error


class Reload(unittest.TestCase):
    def setUp(self):
        self.keys, self.next = harness.Keys(), harness.Keys()
        self.addCleanup(self.keys.close)
        self.addCleanup(self.next.close)
        self.both = self.keys.path("both.pem")  # whoever trusts both sees no difference
        with open(self.both, "w", encoding="ascii") as out:
            for keys in (self.keys, self.next):
                with open(keys.path("ca.pem"), encoding="ascii") as file:
                    out.write(file.read())
        self.server = harness.Server(self.keys)
        self.addCleanup(self.server.close)
        self.server.start()
        self.server.context = wire.tls_context(self.both)

    def peer(self, library):
        peer = peers.Peer(library, self.keys.folder)
        self.addCleanup(peer.close)
        return peer

    def login(self, peer, user, **options):
        return peers.Client(self.server.address, peer, user, 1, self.keys.token(user), ca=self.both,
                            **options)

    def begin_load(self):
        stays = [self.server.login(2000 + number) for number in range(2)]

        def talk(client):
            client.wait_answer(client.send(2000, b"still here"))

        def visit():
            with self.server.login(3000) as client:
                client.ping()

        loads = [Load(lambda client=client: talk(client)) for client in stays] + [Load(visit)]
        for load in loads:
            load.start()
        return loads, stays

    def wait_for_certificate(self, wanted):
        """Each door takes it in its next turn: until many connections in a row have seen it."""
        deadline = time.monotonic() + wire.TIMEOUT
        seen = 0
        while seen < 12:
            with self.server.connect() as connection:
                der = connection.socket.getpeercert(binary_form=True)
            seen = seen + 1 if hashlib.sha256(der).hexdigest() == wanted else 0
            self.assertLess(time.monotonic(), deadline)

    def test_certificate_changes_for_new_connections_alone(self):
        old_print, new_print = (fingerprint(keys.path("server.pem"))
                                for keys in (self.keys, self.next))
        loads, stays = self.begin_load()
        before = {library: self.login(self.peer(library), 1000 + number)
                  for number, library in enumerate(LIBRARIES)}
        for client in before.values():
            self.assertEqual(client.info["certificate"], old_print)
            client.ping()

        for name in ("server.pem", "server-key.pem"):
            shutil.copyfile(self.next.path(name), self.keys.path(name))
        self.server.signal(signal.SIGHUP)
        self.server.wait_line("event=reloaded ")
        self.wait_for_certificate(new_print)

        for number, library in enumerate(LIBRARIES):
            with self.subTest(library):
                old = before[library]
                if "update" not in old.peer.gaps:
                    old.peer.do("update", "1")
                old.ping()
                self.assertTrue(old.wait_answer(old.send(2000, b"from before"))["accepted"])
                with self.login(self.peer(library), 1100 + number) as fresh:
                    self.assertEqual(fresh.info["certificate"], new_print)
                    fresh.ping()
                with self.assertRaises(peers.Refused):  # who trusts the old authority alone
                    self.peer(library).connect(self.server.address, alpn="holdfast/1",
                                               sni="localhost", ca=self.keys.path("ca.pem"))
                old.close()
                with self.login(old.peer, 1000 + number, resume=1) as again:
                    self.assertTrue(again.info["resumed"])  # a ticket of before is still good
                    again.ping()

        rounds = [load.rounds for load in loads]
        deadline = time.monotonic() + wire.TIMEOUT
        while any(load.rounds < count + 3 for load, count in zip(loads, rounds, strict=True)):
            self.assertLess(time.monotonic(), deadline)
            threading.Event().wait(0.01)
        for load in loads:
            load.over.set()
        for load in loads:
            load.join()
            self.assertIsNone(load.failure)
        for client in stays:
            client.close()


if __name__ == "__main__":
    peers.main()
