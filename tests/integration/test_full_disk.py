#!/usr/bin/env python3
"""A server on a small file system that fills up: messages are refused, reads and log-ins go on,
nothing is lost, and it recovers by itself. Needs root, to mount one; skipped without.

    test_full_disk.py HOLDFASTD HOLDFAST_TOKEN
"""
import os
import subprocess
import sys
import tempfile
import time
import unittest

import harness
import wire

MIB = 1 << 20
RESERVE = 64 * MIB  # a flush leaves so much room to others (docs/operations.md)
SKIPPED = 77


class Mount:
    """A file system of its own."""

    def __init__(self, kind, size):
        self.path = tempfile.mkdtemp(prefix="holdfast-mount.")
        done = subprocess.run(["mount", "-t", kind, "-o", f"size={size},nosuid,nodev", kind,
                               self.path], check=False, capture_output=True)
        self.mounted = done.returncode == 0

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.path], check=True)
        os.rmdir(self.path)

    def free(self):
        space = os.statvfs(self.path)
        return space.f_bavail * space.f_frsize

    def fill(self, left):
        """So that this many bytes are free."""
        with open(os.path.join(self.path, "filler"), "ab") as file:
            size = self.free() - left
            assert size > 0
            try:
                os.posix_fallocate(file.fileno(), os.path.getsize(file.name), size)
            except OSError:
                assert left == 0

    def empty(self):
        os.remove(os.path.join(self.path, "filler"))


def users_of_core(core, count):
    return [user for user in range(1001, 9000) if harness.core_of(user, 1) == core][:count]


class FullDisk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)

    def setUp(self):
        self.mount = Mount("tmpfs", "200m")
        self.addCleanup(self.mount.close)
        self.server = harness.Server(self.keys, data_dir=os.path.join(self.mount.path, "data"),
                                     cores=1, journal_bytes="4M", journal_segment_bytes="256k",
                                     flush_interval_s=1)
        self.addCleanup(self.server.close)
        self.one, self.two = users_of_core(0, 2)
        self.accepted = []

    def send_until_refused(self, client, peer):
        """Bodies that were accepted are kept, in order."""
        deadline = time.monotonic() + wire.TIMEOUT
        while time.monotonic() < deadline:
            body = b"%d " % len(self.accepted) + os.urandom(4000)
            answer = client.wait_answer(client.send(peer, body))
            if not answer["accepted"]:
                self.assertEqual(answer["name"], "RETRY")
                self.assertGreater(answer["retry_ms"], 0)
                client.counter -= 1  # it consumed nothing
                del client.answers[answer["counter"]]
                return
            self.accepted.append(body)
        self.fail("the journal never filled up")

    def send_until_accepted(self, client, peer):
        deadline = time.monotonic() + wire.TIMEOUT
        body = b"%d after all" % len(self.accepted)
        while True:
            answer = client.wait_answer(client.send(peer, body))
            if answer["accepted"]:
                self.accepted.append(body)
                return
            self.assertEqual(answer["name"], "RETRY")
            client.counter -= 1
            del client.answers[answer["counter"]]
            self.assertLess(time.monotonic(), deadline)
            client.ping()

    def check_all(self):
        for user in (self.one, self.two):
            with self.server.login(user) as client:
                bodies = [entry["body"] for entry in client.wait_entries(len(self.accepted))]
                self.assertEqual(bodies, self.accepted)

    def check_reads(self):
        """What goes on though nothing can be written any more."""
        with self.server.login(self.two) as client:
            client.wait_entries(len(self.accepted))
            page = client.history(1, self.one, wire.BEFORE, 0, 3)
            found = {entry["seq"]: entry["body"] for entry in page["entries"]}
            self.assertEqual([found[seq] for seq in sorted(found)], self.accepted[-3:])
        with self.assertRaisesRegex(AssertionError, "BUSY"):
            self.server.login(self.two, 2)  # a new device is a new row

    def start_and_fill(self, left):
        self.server.start()
        for user in (self.one, self.two):
            self.server.login(user).leave()
        self.server.wait_metric("holdfast_disk_full", 0)
        self.mount.fill(left)
        client = self.server.login(self.one)
        self.addCleanup(client.close)
        self.send_until_refused(client, self.two)
        self.server.wait_line("event=disk_full ")
        self.server.wait_metric("holdfast_disk_full", 1)
        self.assertLessEqual(self.server.metric("holdfast_data_free_bytes"), left)
        return client

    def test_full_disk_refuses_sends_serves_reads_and_recovers_by_itself(self):
        for left in (RESERVE - MIB, 0):
            with self.subTest(left=left):
                client = self.start_and_fill(left)
                self.check_reads()
                self.mount.empty()
                self.send_until_accepted(client, self.two)
                self.server.wait_line("event=disk_has_room ")
                self.server.wait_metric("holdfast_disk_full", 0)
                client.close()
                self.check_all()
                self.server.stop()
                self.server.start()
                self.check_all()
                self.server.stop()

    def test_crash_on_a_full_disk_waits_for_room_at_the_start(self):
        for left in (RESERVE - MIB, 0):
            with self.subTest(left=left):
                self.start_and_fill(left).close()
                self.server.kill()
                self.server.start(wait=False)
                self.server.wait_line("event=disk_full .*recovery goes on when there is room")
                self.mount.empty()
                self.server.wait_line("event=ready ")
                self.server.addresses = [self.server.parse(line) for line in
                                         self.server.find_lines("event=listening ")]
                self.server.address = self.server.addresses[0]
                self.check_all()
                self.server.stop()

    def test_stop_on_a_full_disk_keeps_what_was_accepted(self):
        self.start_and_fill(0).close()
        self.server.stop()
        self.mount.empty()
        self.server.start()
        self.check_all()
        self.server.stop()

    def test_no_room_for_a_new_directory_is_said(self):
        self.mount.fill(2 * MIB)
        self.server.start(wait=False)
        self.assertEqual(self.server.wait_exit(), 73)
        self.assertRegex(self.server.find_lines("event=not_started ")[0], "no room|No space|full")


class OtherFileSystems(unittest.TestCase):
    """Where O_DIRECT can't be had, the page cache will do."""

    def test_ramfs_serves_and_recovers(self):
        keys = harness.Keys()
        self.addCleanup(keys.close)
        mount = Mount("ramfs", "200m")
        self.addCleanup(mount.close)
        with self.assertRaises(OSError):
            os.close(os.open(os.path.join(mount.path, "probe"),
                             os.O_RDWR | os.O_CREAT | os.O_DIRECT))
        server = harness.Server(keys, data_dir=os.path.join(mount.path, "data"),
                                journal_bytes="4M", journal_segment_bytes="256k",
                                flush_interval_s=1)
        self.addCleanup(server.close)
        server.start()
        with server.login(1001) as client:
            for number in range(200):
                client.wait_answer(client.send(1001, b"%d " % number + bytes(4000)))
        server.kill()
        server.start()
        with server.login(1001) as client:
            self.assertEqual(len(client.wait_entries(200)), 200)
        server.stop()


def can_mount():
    probe = Mount("tmpfs", "1m")
    probe.close()
    return probe.mounted


if __name__ == "__main__":
    if os.geteuid() != 0 or not can_mount():
        print("skipped: mounting a file system needs root")
        sys.exit(SKIPPED)
    harness.main()
