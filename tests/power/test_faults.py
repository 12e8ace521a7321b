#!/usr/bin/env python3
"""Calls that fail: each kind of write, sync, read and name, at the start, in service and in recovery.
The server ends with EX_IOERR and a line that names the file and says what to do; started again, it
has all that it had accepted.

    test_faults.py BUILD_DIR [--all]
"""
import errno
import os
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import session  # noqa: E402
from session import harness, load  # noqa: E402

EX_CANTCREAT, EX_IOERR = 73, 74
ALL = False
REMEDY = r"mend or replace (it|the disk), then start again"


def some(rows):
    """A third of them, unless all are asked for."""
    return rows if ALL else rows[::3]


def fault(call, name, at, number=errno.EIO):
    return f"{call},{name},{at},{number}"


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)

    def make_server(self, **options):
        server = harness.Server(self.keys, **{**session.SERVER, "cores": 2, **options})
        os.mkdir(server.data, 0o700)
        os.environ["HF_RECORD_DIR"] = server.data
        self.addCleanup(server.close)
        return server

    def start_with(self, server, spec):
        """Not waited for: it may end at once."""
        os.environ["HF_FAULT"] = spec
        try:
            server.start(wait=False)
        finally:
            del os.environ["HF_FAULT"]

    def expect_end(self, server, code, *patterns):
        got = server.wait_exit()
        log = server.log()
        self.assertEqual(got, code, log)
        last = [line for line in log.split("\n") if "level=error" in line][-1:]
        self.assertTrue(last, log)
        for pattern in patterns:
            self.assertRegex(last[0], pattern)
        return last[0]

    def expect_all_there(self, server, chat):
        server.start()
        missing = load.wait_for_streams(server, chat, time.monotonic_ns(), 0)
        self.assertEqual(missing, [])
        server.stop()

    # ---- a directory that is being made

    def test_start_of_a_new_directory_fails_with_the_file_and_succeeds_later(self):
        rows = [
            ("make", "manifest.new", 1, EX_IOERR, r"manifest"),
            ("write", "manifest.new", 1, EX_IOERR, r"manifest"),
            ("sync", "manifest.new", 1, EX_IOERR, r"manifest"),
            ("rename", "manifest", 1, EX_IOERR, r"manifest"),
            ("write", "lock", 1, EX_IOERR, r"lock"),
            ("make", "volume-003.mdb.new", 1, EX_IOERR, r"volume-003\.mdb"),
            ("write", "volume-003.mdb", 1, EX_IOERR, r"volume-003\.mdb"),
            ("write", "volume-003.mdb", 3, EX_IOERR, r"volume-003\.mdb"),
            ("sync", "volume-003.mdb", 1, EX_IOERR, r"volume-003\.mdb"),
            ("sync", "volume-003.mdb", 2, EX_IOERR, r"volume-003\.mdb"),
            ("sync", "volume-003.mdb", 3, EX_IOERR, r"volume 3"),
            ("sync", "volume-003.mdb", 4, EX_IOERR, r"volume 3"),
            ("rename", "volume-003.mdb", 1, EX_IOERR, r"volume-003\.mdb"),
            ("make", "journal-1/00-001", 1, EX_IOERR, r"journal-1/00-001"),
            ("write", "journal-1/01-002", 1, EX_IOERR, r"journal-1/01-002"),
            ("sync", "journal-1/00-001", 1, EX_IOERR, r"journal-1/00-001"),
            ("sync", "journal-1", 9, EX_IOERR, r"journal-1"),
            ("sync", "resume-keys", 1, EX_IOERR, r"resume-keys"),
            ("write", "ticket-keys", 1, EX_IOERR, r"ticket-keys"),
        ]
        for call, name, at, code, pattern in some(rows):
            with self.subTest(call=call, name=name, at=at):
                server = self.make_server()
                self.start_with(server, fault(call, name, at))
                self.expect_end(server, code, pattern, r"Input/output error", REMEDY)
                server.start()
                server.login(1).leave()
                server.stop()

    def test_new_directory_without_room_says_so(self):
        for call, name in (("write", "journal-1/00-001"), ("write", "manifest.new")):
            with self.subTest(name=name):
                server = self.make_server()
                self.start_with(server, fault(call, name, 1, errno.ENOSPC))
                self.expect_end(server, EX_CANTCREAT, "No space left on device")
                server.start()
                server.stop()

    # ---- in service

    def load_until_end(self, server, chat, spec, code, *patterns):
        """A server that has served before, then under load until the fault."""
        server.start()
        chat.make_users(server)
        chat.run(server, 50)
        chat.stop()
        server.stop()
        self.start_with(server, spec)
        try:
            server.wait_line(r"event=ready ")
        except AssertionError:
            pass  # it may come so early
        else:
            server.address = server.parse(server.find_lines(r"event=listening ")[0])
            chat.run(server, 1500)
            chat.stop()
        return self.expect_end(server, code, *patterns)

    def run_rows(self, rows, **options):
        for call, name, at, number, patterns in rows:
            with self.subTest(call=call, name=name, at=at, errno=number):
                server = self.make_server(flush_percent=5, **options)
                chat = load.Load(at)
                self.load_until_end(server, chat, fault(call, name, at, number), EX_IOERR,
                                    *patterns)
                self.expect_all_there(server, chat)

    def test_failed_journal_write_stops_the_server_and_loses_nothing(self):
        at = (1, 2, 7, 40, 100) if ALL else (20,)
        self.run_rows([("journal", "journal-1/", n, errno.EIO,
                        (r"journal-1/0[01]-00\d: Input/output error", REMEDY)) for n in at]
                      + [("journal", "journal-1/", 9, errno.ENOSPC,
                          (r"journal-1/0[01]-00\d: No space left", REMEDY))])

    def test_failed_commit_stops_the_server_and_loses_nothing(self):
        at = (1, 2, 3, 5, 8, 17, 33, 50) if ALL else (33,)
        self.run_rows([(call, "volume-", n, number, (r"volume[- ]\d+", REMEDY))
                       for n in at for call, number in (("write", errno.EIO), ("sync", errno.EIO),
                                                        ("sync", errno.ENOSPC))])

    def test_flusher_that_cannot_read_the_journal_stops_the_server(self):
        server = self.make_server(flush_percent=5)
        chat = load.Load(1)
        self.start_with(server, fault("read", "journal-1/", "1+"))
        server.wait_line(r"event=ready ")
        server.address = server.parse(server.find_lines(r"event=listening ")[0])
        chat.make_users(server)
        chat.run(server, 3000)
        chat.stop()
        self.expect_end(server, EX_IOERR, r"journal-1/0\d-00\d: Input/output error: the batch at",
                        REMEDY)
        self.expect_all_there(server, chat)

    def test_reader_that_cannot_read_the_journal_stops_the_server(self):
        """Old entries that no volume has yet: behind what is kept in memory."""
        server = self.make_server(flush_percent=70, flush_interval_s=86400, recent_bytes=65536,
                                  cores=1)
        chat = load.Load(1, user_count=2, devices=1)
        self.start_with(server, fault("read", "journal-1/", "1+"))
        server.wait_line(r"event=ready ")
        server.address = server.parse(server.find_lines(r"event=listening ")[0])
        chat.make_users(server)
        chat.run(server, 400)
        chat.stop()
        try:
            load.read_all(server, chat.users, device=2)
        except load.GONE:
            pass
        self.expect_end(server, EX_IOERR, r"journal-1/00-00\d: Input/output error", REMEDY)
        self.expect_all_there(server, chat)

    def test_page_of_a_volume_that_cannot_be_read_stops_the_server(self):
        """What a bad sector under a mapped file is to a program, a file cut short is too."""
        server = self.make_server(flush_percent=5)
        chat = load.Load(1)
        server.start()
        chat.make_users(server)
        chat.run(server, 300)
        chat.stop()
        saved = {}
        server.kill()
        server.start()  # all is in the volumes
        for name in sorted(os.listdir(server.data)):
            if name.endswith(".mdb"):
                path = os.path.join(server.data, name)
                with open(path, "rb") as file:
                    saved[path] = file.read()
                os.truncate(path, 8192)
        try:
            load.read_all(server, chat.users, device=2)
        except (*load.GONE, TimeoutError):
            pass
        self.expect_end(server, EX_IOERR, r"volume-\d+\.mdb: a page can't be read", REMEDY)
        for path, data in saved.items():
            with open(path, "wb") as file:
                file.write(data)
        self.expect_all_there(server, chat)

    # ---- in recovery

    def test_failed_recovery_says_what_failed_and_succeeds_later(self):
        rows = [
            ("read", "manifest", 1, r"manifest"),
            ("read", "journal-1/01-001", 1, r"journal of core 1: segment 1 can't be read"),
            ("read", "volume-007.mdb", 1, r"volume-007\.mdb"),
            ("sync", "journal-1/00-002", 1, r"journal-1/00-002"),
            ("write", "volume-", 1, r"volume[- ]\d+"),
            ("sync", "volume-", 1, r"volume[- ]\d+"),
            ("sync", "volume-", 12, r"volume[- ]\d+"),
            ("sync", "manifest.new", 1, r"manifest"),
            ("rename", "manifest", 1, r"manifest"),
        ]
        server = self.make_server(flush_percent=70)
        chat = load.Load(2)
        server.start()
        chat.make_users(server)
        chat.run(server, 300)
        server.kill()
        chat.stop()
        for call, name, at, pattern in rows:
            with self.subTest(call=call, name=name, at=at):
                self.start_with(server, fault(call, name, at))
                self.expect_end(server, EX_IOERR, pattern, r"Input/output error", REMEDY)
        self.expect_all_there(server, chat)


def main():
    global ALL
    build = os.path.abspath(sys.argv[1])
    ALL = "--all" in sys.argv
    harness.HOLDFAST_TOKEN = os.path.join(build, "core", "holdfast-token")
    harness.HOLDFASTD = os.path.join(build, "tests", "power", "holdfastd_recorded")
    names = [one for one in sys.argv[2:] if one != "--all"]
    unittest.main(module="__main__", argv=[sys.argv[0], *names], verbosity=2)


if __name__ == "__main__":
    main()
