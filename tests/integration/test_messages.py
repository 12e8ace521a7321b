#!/usr/bin/env python3
"""Messages between users on one core and on two: order, marks of devices, history, fencing.

    test_messages.py HOLDFASTD HOLDFAST_TOKEN
"""
import concurrent.futures
import os
import struct
import threading
import unittest

import harness
import wire


class Messages(harness.ServerTest):
    def pair(self, same_core):
        """Two new users, at home on one core or on two."""
        first = self.new_user()
        second = self.new_user()
        while (harness.core_of(first) == harness.core_of(second)) != same_core:
            second = self.new_user()
        return first, second

    def test_message_reaches_the_other_user_in_both_logs(self):
        for same_core in (True, False):
            with self.subTest(same_core=same_core):
                alice, bob = self.pair(same_core)
                a, b = self.login(alice), self.login(bob)
                nonce = os.urandom(16)
                counter = a.send(bob, b"hello", nonce=nonce, kind=7)
                answer = a.wait_answer(counter)
                self.assertTrue(answer["accepted"])
                self.assertEqual((counter, answer["seq"]), (1, 1))
                mine = a.wait_entries(1)[0]
                if mine["form"] == "SENT":
                    self.assertEqual((mine["counter"], mine["id"]), (1, answer["id"]))
                else:
                    self.assertEqual((mine["own"], mine["nonce"]), (True, nonce))
                got = b.wait_entries(1)[0]
                expected = {"form": "MESSAGE", "own": False, "kind": 7, "conversation": alice,
                            "sender": alice, "device": 1, "prev": 0, "n": 1, "cn": 1,
                            "body": b"hello", "id": answer["id"], "seq": 1}
                self.assertEqual({key: got[key] for key in expected}, expected)

    def test_many_messages_keep_their_order(self):
        for same_core in (True, False):
            with self.subTest(same_core=same_core):
                alice, bob = self.pair(same_core)
                a, b = self.login(alice), self.login(bob)
                count = 300
                for i in range(count):
                    a.wait_for(lambda i=i: len(a.answers) >= i - 31)  # 32 may be unanswered
                    a.send(bob, b"m%d" % i)
                    if i % 3 == 0:
                        b.send(alice, b"r%d" % i)
                        b.wait_for(lambda: len(b.answers) >= b.counter - 31)
                a.wait_for(lambda: len(a.answers) == count)
                self.assertTrue(all(answer["accepted"] for answer in a.answers.values()))
                a.wait_entries(count + count // 3)
                b.wait_entries(count + count // 3)
                got = [entry["body"] for entry in b.entries
                       if entry["form"] == "MESSAGE" and not entry["own"]]
                self.assertEqual(got, [b"m%d" % i for i in range(count)])
                back = [entry["body"] for entry in a.entries
                        if entry["form"] == "MESSAGE" and not entry["own"]]
                self.assertEqual(back, [b"r%d" % i for i in range(0, count, 3)])

    def test_notes_to_oneself_are_one_entry(self):
        user = self.new_user()
        client = self.login(user)
        answer = client.wait_answer(client.send(user, b"note"))
        self.assertTrue(answer["accepted"])
        client.wait_entries(1)
        client.ping()
        self.assertEqual(len(client.entries), 1)
        page = client.history(1, user, wire.BEFORE, 0, 10)
        self.assertEqual([entry["body"] for entry in page["entries"]], [b"note"])

    def test_all_devices_get_the_same_log(self):
        alice, bob = self.pair(same_core=False)
        a, b1, b2 = self.login(alice), self.login(bob, 1), self.login(bob, 2)
        for i in range(10):
            a.send(bob, b"to both %d" % i)
        b1.send(alice, b"from the first")
        for client in (b1, b2):
            client.wait_entries(11)
        bodies = [[(entry["seq"], entry.get("id")) for entry in client.entries]
                  for client in (b1, b2)]
        self.assertEqual(*bodies)
        whole = [entry for entry in b2.entries if entry["form"] == "MESSAGE" and entry["own"]]
        self.assertEqual([(entry["body"], entry["device"]) for entry in whole],
                         [(b"from the first", 1)])

    def test_device_that_comes_back_goes_on_behind_its_cursor(self):
        alice, bob = self.pair(same_core=False)
        a, b = self.login(alice), self.login(bob)
        for i in range(5):
            a.send(bob, b"%d" % i)
        b.wait_entries(5)
        cursor, token = b.cursor, b.hello["resume_token"]
        b.leave()
        for i in range(5, 12):
            a.send(bob, b"%d" % i)
        a.wait_for(lambda: len(a.answers) == 12)
        b = self.login(bob, 1, token, cursor=cursor)
        self.assertEqual(b.hello["result"], wire.RESUME)
        self.assertEqual([entry["body"] for entry in b.wait_entries(7)],
                         [b"%d" % i for i in range(5, 12)])
        again = self.login(bob, 2)  # a new device gets all of it
        self.assertEqual([entry["body"] for entry in again.wait_entries(12)],
                         [b"%d" % i for i in range(12)])

    def test_repeat_gets_the_same_answer(self):
        alice, bob = self.pair(same_core=True)
        a, b = self.login(alice), self.login(bob)
        nonce = os.urandom(16)
        first = a.wait_answer(a.send(bob, b"once", nonce=nonce))
        a.close()
        a = self.login(alice)
        self.assertEqual(a.hello["last_counter"], 1)
        again = a.wait_answer(a.send(bob, b"once", nonce=nonce, counter=1))
        self.assertEqual((again["id"], again["seq"]), (first["id"], first["seq"]))
        b.wait_entries(1)
        b.ping()
        self.assertEqual(len(b.entries), 1)

    def test_counter_used_with_another_nonce_is_a_conflict(self):
        alice, bob = self.pair(same_core=True)
        a = self.login(alice)
        self.login(bob)
        a.wait_answer(a.send(bob, b"one"))
        a.send(bob, b"two", counter=1)
        self.assertEqual(a.wait_end(), "CONFLICT")

    def test_gap_of_counters_is_told(self):
        alice, bob = self.pair(same_core=True)
        a = self.login(alice)
        self.login(bob)
        answer = a.wait_answer(a.send(bob, b"too far", counter=5))
        self.assertEqual((answer["name"], answer["expected"]), ("ORDER", 1))

    def test_sends_that_can_never_be_taken_use_up_their_counter(self):
        alice, bob = self.pair(same_core=True)
        a, b = self.login(alice), self.login(bob)
        rows = [(0, b"", 0, "BAD_CONVERSATION"), (bob, b"x" * 15001, 0, "BODY_TOO_LARGE"),
                (bob, b"", 128, "BAD_KIND")]
        for number, (conversation, body, kind, name) in enumerate(rows, 1):
            with self.subTest(name):
                answer = a.wait_answer(a.send(conversation, body, kind=kind))
                self.assertEqual((answer["counter"], answer["name"]), (number, name))
        answer = a.wait_answer(a.send(bob, b"x" * 15000))
        self.assertTrue(answer["accepted"])
        self.assertEqual(b.wait_entries(1)[0]["body"], b"x" * 15000)

    def test_message_to_nobody_ends_as_refused(self):
        for same_core in (True, False):
            with self.subTest(same_core=same_core):
                alice, nobody = self.pair(same_core)
                a = self.login(alice)
                answer = a.wait_answer(a.send(nobody, b"anyone?"))
                self.assertTrue(answer["accepted"])
                refused = a.wait_entries(2)[1]
                self.assertEqual((refused["form"], refused["code"], refused["ref_seq"],
                                  refused["id"], refused["conversation"]),
                                 ("REFUSED", wire.CODES["UNKNOWN"], answer["seq"], answer["id"],
                                  nobody))

    def test_history_goes_both_ways(self):
        alice, bob = self.pair(same_core=False)
        a, b = self.login(alice), self.login(bob)
        count = 25
        for i in range(count):
            (a if i % 2 == 0 else b).wait_answer(
                a.send(bob, b"%d" % i) if i % 2 == 0 else b.send(alice, b"%d" % i))
            a.wait_entries(i + 1)
            b.wait_entries(i + 1)
        bodies = [b"%d" % i for i in range(count)]
        page = b.history(1, alice, wire.BEFORE, 0, 10)
        self.assertEqual([entry["body"] for entry in page["entries"]], bodies[15:])
        self.assertTrue(page["more"])
        page = b.history(2, alice, wire.BEFORE, page["entries"][0]["seq"], 100)
        self.assertEqual([entry["body"] for entry in page["entries"]], bodies[:15])
        self.assertFalse(page["more"] or page["trimmed"])
        page = b.history(3, alice, wire.AFTER, 0, 10)
        self.assertEqual([entry["body"] for entry in page["entries"]], bodies[:10])
        self.assertTrue(page["more"])
        page = b.history(4, alice, wire.AFTER, page["entries"][-1]["seq"], 200)
        self.assertEqual([entry["body"] for entry in page["entries"]], bodies[10:])
        self.assertFalse(page["more"])
        self.assertEqual([entry["n"] for entry in page["entries"]], list(range(11, 26)))
        small = b.history(5, alice, wire.BEFORE, 0, 10, byte_count=200)
        self.assertLess(len(small["entries"]), 10)
        self.assertEqual(small["entries"][-1]["body"], bodies[-1])

    def test_history_that_cannot_be_given_is_an_error(self):
        alice, bob = self.pair(same_core=True)
        a = self.login(alice)
        self.login(bob)
        a.wait_answer(a.send(bob, b"one"))
        a.wait_answer(a.send(alice, b"two"))
        empty = a.history(1, bob + 100000, wire.BEFORE, 0, 10)
        self.assertEqual((empty["entries"], empty["more"]), ([], False))
        self.assertEqual(a.history(2, bob, wire.BEFORE, 99, 10)["name"], "BAD_CURSOR")
        self.assertEqual(a.history(3, bob, wire.BEFORE, 2, 10)["name"], "BAD_CURSOR")
        a.write_frame(wire.HISTORY, wire.history_payload(0, bob, 1, 0, 1))
        self.assertEqual(a.wait_end(), "BAD_FIELD")

    def test_newer_connection_of_a_device_replaces_the_older(self):
        alice, bob = self.pair(same_core=False)
        old = self.login(alice)
        self.login(bob)
        old.wait_answer(old.send(bob, b"one"))
        new = self.login(alice)
        self.assertEqual(new.hello["last_counter"], 1)
        self.assertEqual(old.wait_end(), "REPLACED")
        self.assertTrue(new.wait_answer(new.send(bob, b"two"))["accepted"])

    def test_hello_of_an_older_socket_is_replaced_itself(self):
        user = self.new_user()
        older = self.connect()  # accepted first, says HELLO last
        older.socket.do_handshake()
        newer = self.login(user)
        older.write_frame(wire.HELLO, wire.hello_payload(user, 1, self.keys.token(user)))
        older.expect_error("REPLACED")
        newer.ping()

    def test_window_bounds_what_is_not_acknowledged(self):
        alice, bob = self.pair(same_core=True)
        a = self.login(alice)
        b = self.login(bob, window=16000)
        b.ack = False
        for _ in range(10):
            a.wait_answer(a.send(bob, b"x" * 6000))
        b.wait_entries(2)
        b.ping()
        seen = len(b.entries)
        self.assertLess(seen, 4)
        b.ack = True
        b.write_frame(wire.ACK, struct.pack(">QQ", b.seq, 0))
        b.wait_entries(10)

    def test_ack_beyond_what_was_sent_is_refused(self):
        client = self.login(self.new_user())
        client.write_frame(wire.ACK, struct.pack(">QQ", 5, 0))
        self.assertEqual(client.wait_end(), "BAD_FIELD")

    def test_ping_is_answered_in_order(self):
        client = self.login(self.new_user())
        for opaque in (0, 1, (1 << 64) - 1):
            client.ping(opaque)

    def test_unknown_frames_are_told_or_passed_over(self):
        client = self.login(self.new_user())
        client.write_frame(200, b"anything")
        client.ping()
        self.assertEqual(client.others, [])
        client.write_frame(77, b"anything")
        client.ping()
        (kind, fields), = client.others
        self.assertEqual((kind, fields["name"], fields["fatal"]), (wire.ERROR, "UNSUPPORTED", 0))

    def test_bye_ends_the_connection(self):
        client = self.login(self.new_user())
        client.write_frame(wire.BYE)
        self.assertIsNone(client.wait_end())


class FullBatch(harness.ServerTest):
    """A batch of the journal of 64 KB: a few clients fill it while the one before is written."""

    OPTIONS = {"cores": 1, "journal_bytes": "64M", "journal_segment_bytes": "256k"}
    PAIRS = 12
    ROUNDS = 6
    BODY = 1900

    def talk(self, sender, peer, start):
        """Rounds of as many SENDs as may be unanswered, in one write; returns their bodies."""
        bodies = []
        for round_number in range(self.ROUNDS):
            frames = b""
            for i in range(32):
                body = b"%d %d %d " % (sender.user, round_number, i)
                bodies.append(body + os.urandom(self.BODY - len(body)))
                sender.counter += 1
                frames += wire.frame(wire.SEND, wire.send_payload(
                    sender.counter, os.urandom(16), peer.user, bodies[-1]))
            start.wait(wire.TIMEOUT)
            sender.write(frames)
            sender.wait_for(lambda: len(sender.answers) == len(bodies))
        return bodies

    def test_what_waits_for_the_next_batch_is_neither_lost_nor_overtaken(self):
        senders = [self.login(self.new_user()) for _ in range(self.PAIRS)]
        peers = [self.login(self.new_user()) for _ in range(self.PAIRS)]
        start = threading.Barrier(self.PAIRS)
        with concurrent.futures.ThreadPoolExecutor(self.PAIRS) as pool:
            sent = list(pool.map(self.talk, senders, peers, [start] * self.PAIRS))
        for sender, peer, bodies in zip(senders, peers, sent, strict=True):
            self.assertTrue(all(answer["accepted"] for answer in sender.answers.values()))
            self.assertEqual([sender.answers[counter]["seq"] for counter in sorted(sender.answers)],
                             list(range(1, len(bodies) + 1)))
            self.assertEqual([entry["body"] for entry in peer.wait_entries(len(bodies))], bodies)
            sender.ping()


if __name__ == "__main__":
    harness.main()
