#!/usr/bin/env python3
"""Retention by age: old entries go, young ones never do, and devices that were away are told.

    test_retention.py HOLDFASTD HOLDFAST_TOKEN
"""
import threading
import unittest

import harness
import wire

AGE_S = 4
ID_EPOCH_MS = 1577836800000  # docs/protocol.md: the time in a message id


def made_at_ms(entry):
    return (entry["id"] >> 23) + ID_EPOCH_MS


class Retention(unittest.TestCase):
    def setUp(self):
        self.keys = harness.Keys()
        self.addCleanup(self.keys.close)
        self.server = harness.Server(self.keys, retention_age_s=AGE_S, flush_interval_s=1)
        self.addCleanup(self.server.close)
        self.server.start()
        self.alice, self.bob = 1001, 1002
        while harness.core_of(self.alice) == harness.core_of(self.bob):
            self.bob += 1

    def login(self, *arguments, **options):
        client = self.server.login(*arguments, **options)
        self.addCleanup(client.close)
        return client

    def wait_trimmed(self, count):
        self.server.wait_metric("holdfast_entries_trimmed_total", count, by="age")

    def test_old_entries_go_from_both_logs_and_devices_are_told(self):
        a, b = self.login(self.alice), self.login(self.bob)
        for i in range(3):
            a.wait_answer(a.send(self.bob, b"%d" % i))
        b.wait_entries(3)
        a.wait_entries(3)
        behind, current = (b.epoch, 1, 0), b.cursor
        self.wait_trimmed(6)

        fresh = self.login(self.bob, 2)
        self.assertEqual((fresh.hello["result"], fresh.hello["floor"], fresh.hello["head"]),
                         (wire.RESET, 4, 3))
        page = fresh.history(1, self.alice, wire.BEFORE, 0, 10)
        self.assertEqual((page["entries"], page["trimmed"]), ([], True))
        self.assertEqual(self.login(self.bob, 1, cursor=behind).hello["result"], wire.RESET)
        again = self.login(self.bob, 1, cursor=current)
        self.assertEqual(again.hello["result"], wire.RESUME)

        # Numbers go on, and what comes now is there.
        a.wait_answer(a.send(self.bob, b"new"))
        self.assertEqual([(entry["seq"], entry["n"], entry["body"])
                          for entry in again.wait_entries(1)], [(4, 4, b"new")])

        # What is gone is gone after a start, too, and from the volume.
        self.server.wait_metric("holdfast_unflushed_entries", 0)
        self.server.kill()
        self.server.start()
        fresh = self.login(self.bob, 3)
        self.assertGreaterEqual(fresh.hello["floor"], 4)
        self.wait_trimmed(2)  # the last one, in both logs
        self.assertEqual(self.login(self.bob, 4).hello["floor"], 5)

    def test_no_entry_goes_before_its_age(self):
        a, b = self.login(self.alice), self.login(self.bob)
        stop = threading.Event()
        sent = 0
        seen = set()
        while len(seen) < 4:  # floors that were met
            a.wait_answer(a.send(self.bob, b"%d" % sent))
            sent += 1
            b.wait_entries(sent)
            with self.server.login(self.bob, 2) as look:
                gone = b.entries[:look.hello["floor"] - 1]
                self.assertTrue(all(made_at_ms(entry) + AGE_S * 1000 <= look.hello["time"]
                                    for entry in gone))
                try:
                    look.wait_entries(sent - len(gone))
                except wire.Closed:
                    continue  # the floor rose between the two
                seen.add(look.hello["floor"])
                self.assertEqual([entry["id"] for entry in look.entries],
                                 [entry["id"] for entry in b.entries[len(gone):]])
            stop.wait(0.1)
        self.assertGreater(self.server.metric("holdfast_retention_sweeps_total"), 2)
        self.wait_trimmed(2 * sent)


class Forever(unittest.TestCase):
    def test_without_an_age_nothing_is_looked_for(self):
        keys = harness.Keys()
        self.addCleanup(keys.close)
        server = harness.Server(keys, flush_interval_s=1)
        self.addCleanup(server.close)
        server.start()
        client = server.login(1001)
        self.addCleanup(client.close)
        client.wait_answer(client.send(1001, b"note"))
        server.wait_metric("holdfast_unflushed_entries", 0)
        threading.Event().wait(2)
        self.assertEqual(server.metric("holdfast_retention_sweeps_total"), 0)
        self.assertEqual(server.metric("holdfast_entries_trimmed_total"), 0)


if __name__ == "__main__":
    harness.main()
