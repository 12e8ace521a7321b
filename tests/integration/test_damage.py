#!/usr/bin/env python3
"""Damaged, missing, foreign and old files of a data directory: named and refused, never served.

    test_damage.py HOLDFASTD HOLDFAST_TOKEN
"""
import os
import shutil
import struct
import unittest

import harness
import wire

BLOCK = 4096


def zero(path):
    size = os.path.getsize(path)
    with open(path, "wb") as file:
        file.write(bytes(size))


def cut(path, size):
    os.truncate(path, size)


def flip(path, at, bit=1):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ bit]))


def swap(one, other):
    os.rename(one, one + ".tmp")
    os.rename(other, one)
    os.rename(one + ".tmp", other)


def read_block(path, number):
    """(incarnation, LSN, first LSN of the batch) of a block of a journal, or None."""
    with open(path, "rb") as file:
        file.seek(number * BLOCK)
        header = file.read(56)
    if header[:3] != b"HFJ":
        return None
    return struct.unpack_from(">QQQ", header, 16)


class Segments:
    """Where core 0's newest run stands in its segments."""

    def __init__(self, data):
        folder = next(name for name in os.listdir(data) if name.startswith("journal-"))
        self.folder = os.path.join(data, folder)
        found = []
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            first = read_block(path, 0) if name.startswith("00-") and "mark" not in name else None
            if first:
                found.append((*first[:2], path))
        newest = max(incarnation for incarnation, _, _ in found)
        # In the order of their LSNs.
        self.paths = [path for incarnation, _, path in sorted(found) if incarnation == newest]
        self.incarnation = newest

    def path(self, name):
        return os.path.join(self.folder, name)

    def last_block(self):
        """The number of the newest segment's last block."""
        number = 0
        first = read_block(self.paths[-1], 0)
        while True:
            block = read_block(self.paths[-1], number + 1)
            if not block or block[:2] != (first[0], first[1] + (number + 1) * BLOCK):
                return number
            number += 1


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)

    def make(self, **options):
        server = harness.Server(self.keys, **{
            "journal_bytes": "4M", "journal_segment_bytes": "256k", "flush_percent": 70,
            "flush_interval_s": 86400, **options})
        self.addCleanup(server.close)
        return server

    def expect_refused(self, server, pattern, code=65):
        server.start(wait=False)
        self.assertEqual(server.wait_exit(), code, server.log())
        self.assertTrue(server.find_lines("event=not_started .*" + pattern), server.log())


def users_of_core(core, count):
    return [user for user in range(1001, 9000) if harness.core_of(user) == core][:count]


def write_notes(server, user, count, size):
    with server.login(user) as client:
        answers = []
        for number in range(count):
            answers.append(client.send(user, b"%d " % number + bytes(size)))
            if len(answers) >= 16:
                assert client.wait_answer(answers.pop(0))["accepted"]
        for counter in answers:
            assert client.wait_answer(counter)["accepted"]


# Name; what is done to the directory (given its path and the segments of core 0); what the last
# line of the log says.
DAMAGE = [
    ("manifest: a bit", lambda data, s: flip(f"{data}/manifest", 40), "manifest: damaged"),
    ("manifest: cut", lambda data, s: cut(f"{data}/manifest", 100), "manifest: damaged"),
    ("manifest: empty", lambda data, s: cut(f"{data}/manifest", 0), "manifest: damaged"),
    ("manifest: missing", lambda data, s: os.remove(f"{data}/manifest"), "but no manifest"),
    ("manifest: a newer format", lambda data, s: rewrite(f"{data}/manifest", b"holdfast 2",
                                                         b"holdfast 9"), "newer version"),
    ("manifest: an old copy", lambda data, s: shutil.copy(f"{data}/../old/manifest", data),
     "it is an old copy"),
    ("segment: a bit", lambda data, s: flip(s.paths[0], 3 * BLOCK + 100),
     "journal of core 0: .*damaged"),
    ("segment: a bit of the newest's first block", lambda data, s: flip(s.paths[-1], 100),
     "journal of core 0: .*damaged"),
    ("segment: a bit of the last block", lambda data, s: flip(s.paths[-1],
                                                              s.last_block() * BLOCK + 100),
     "journal of core 0: .*durable up to"),
    ("segment: cut", lambda data, s: cut(s.paths[0], 100000),
     "is 100000 bytes long, and should be 262144"),
    ("segment: missing", lambda data, s: os.remove(s.paths[0]), "journal-1/00-00. is missing"),
    ("segment: the newest is missing", lambda data, s: os.remove(s.paths[-1]),
     "journal-1/00-00. is missing"),
    ("segment: zeros", lambda data, s: zero(s.paths[1]), "journal of core 0: .*missing"),
    ("segment: the newest is zeros", lambda data, s: zero(s.paths[-1]),
     "journal of core 0: .*durable up to"),
    ("segment: two are swapped", lambda data, s: swap(s.paths[0], s.paths[1]),
     "damaged: its block 0 was written to segment"),
    ("segment: another core's", lambda data, s: swap(s.paths[0], s.path("01-000")),
     "is of another data directory, or another core"),
    ("segment: all zeros", lambda data, s: [zero(path) for path in s.paths],
     "journal of core 0: .*durable up to"),
    ("segment: another server's", lambda data, s: shutil.copy(
        f"{data}/../other/journal-1/00-000", s.paths[0]), "is of another data directory"),
    ("marks: missing", lambda data, s: os.remove(s.path("00-mark")), "00-mark is missing"),
    ("marks: cut", lambda data, s: cut(s.path("00-mark"), 4096), "00-mark is 4096 bytes long"),
    ("marks: zeros", lambda data, s: zero(s.path("00-mark")), "marks are missing or damaged"),
    ("marks: another core's", lambda data, s: swap(s.path("00-mark"), s.path("01-mark")),
     "marks are of another data directory, or another core"),
    ("journal: missing", lambda data, s: shutil.rmtree(s.folder), "journal-1/.* is missing"),
    ("volume: missing", lambda data, s: os.remove(f"{data}/volume-003.mdb"),
     "volume 3: .*volume-003.mdb is missing"),
    ("volume: cut", lambda data, s: cut(f"{data}/volume-003.mdb", 8192),
     "volume-003.mdb: damaged"),
    ("volume: empty", lambda data, s: cut(f"{data}/volume-003.mdb", 0),
     "volume-003.mdb: damaged: it is empty"),
    ("volume: zeros", lambda data, s: zero(f"{data}/volume-003.mdb"), "volume 3: .*damaged"),
    ("volume: two are swapped", lambda data, s: swap(f"{data}/volume-003.mdb",
                                                     f"{data}/volume-004.mdb"),
     "volume 3: .*in the place of"),
    ("volume: another server's", lambda data, s: shutil.copy(f"{data}/../other/volume-003.mdb",
                                                             f"{data}/volume-003.mdb"),
     "volume 3: .*another data directory"),
    ("volume: an old copy", lambda data, s: [shutil.copy(f"{data}/../old/volume-{v:03}.mdb", data)
                                             for v in range(16)], "it is an old copy"),
]


def rewrite(path, old, new):
    with open(path, "rb") as file:
        text = file.read()
    assert old in text
    with open(path, "wb") as file:
        file.write(text.replace(old, new))


class Refusals(Case):
    def test_each_damage_is_named_and_refused(self):
        user, = users_of_core(0, 1)
        server = self.make()
        base = server.data
        server.start()
        write_notes(server, user, 3, 100)
        server.stop()
        shutil.copytree(base, os.path.join(server.folder, "old"))
        server.start()  # applies what was written
        write_notes(server, user, 1, 100)
        server.stop()
        server.start()
        write_notes(server, user, 75, 10000)  # over several segments, and not flushed
        write_notes(server, users_of_core(1, 1)[0], 3, 100)
        server.stop()
        other = self.make()
        other.start()
        write_notes(other, user, 3, 100)
        other.stop()
        shutil.copytree(other.data, os.path.join(server.folder, "other"))
        self.assertGreaterEqual(len(Segments(base).paths), 3)

        for name, damage, pattern in DAMAGE:
            with self.subTest(name):
                data = os.path.join(server.folder, "hurt")
                shutil.rmtree(data, ignore_errors=True)
                shutil.copytree(base, data)
                damage(data, Segments(data))
                server.options["data_dir"] = data
                self.expect_refused(server, pattern)
                if "bit" in name:
                    self.expect_refused(server, pattern)  # it hasn't been "repaired"
        server.options["data_dir"] = base
        server.start()
        with server.login(user) as client:
            self.assertEqual(len(client.wait_entries(79)), 79)

    def test_a_damaged_last_batch_after_a_crash_is_a_torn_one(self):
        user, = users_of_core(0, 1)
        server = self.make()
        server.start()
        with server.login(user) as client:
            client.wait_answer(client.send(user, b"first"))
            client.wait_answer(client.send(user, b"second"))
            server.kill()
        segments = Segments(server.data)
        block = segments.last_block()
        marked = struct.unpack_from(">Q", newest_mark(segments), 24)[0]
        flip(segments.paths[-1], block * BLOCK + 100)
        if marked > read_block(segments.paths[-1], 0)[1] + block * BLOCK:
            self.expect_refused(server, "durable up to")  # it took a second: a mark had seen it
            return
        server.start()
        with server.login(user) as client:
            self.assertEqual(client.hello["head"], 1)
            self.assertEqual(client.wait_entries(1)[0]["body"], b"first")


def newest_mark(segments):
    """The block of marks that goes furthest."""
    with open(segments.path("00-mark"), "rb") as file:
        blocks = [file.read(BLOCK) for _ in range(4)]
    return max((block for block in blocks if block[:3] == b"HFM"
                and struct.unpack_from(">Q", block, 16)[0] == segments.incarnation),
               key=lambda block: block[24:32])


def find_all(data, needle):
    start, found = 0, []
    while (at := data.find(needle, start)) >= 0:
        found.append(at)
        start = at + 1
    return found


def damage_rows(server, needle, offset):
    """Flips a bit at that offset behind each place in the volumes that holds the needle."""
    count = 0
    for name in sorted(os.listdir(server.data)):
        if not name.endswith(".mdb"):
            continue
        path = os.path.join(server.data, name)
        with open(path, "rb") as file:
            data = file.read()
        for at in find_all(data, needle):
            flip(path, at + offset, 0x10)
            count += 1
    assert count > 0
    return count


def row_key(user, tag, rest=b""):
    """store/schema.h: the key of a row of the table `user`."""
    return struct.pack(">HQB", harness.partition_of(user), user, tag) + rest


class Rows(Case):
    """Single rows of the volumes, which are not read at start."""

    def flushed(self, *users, **options):
        """A server whose users have written to each other; all is in the volumes, and it is down."""
        server = self.make(**options)
        server.start()
        for user in users:
            server.login(user).leave()
        for user in users:
            with server.login(user) as client:
                for peer in users:
                    client.wait_answer(client.send(peer, b"needle of %d to %d" % (user, peer)))
        server.stop()
        server.start()
        server.stop()
        return server

    def check_lives(self, server, user):
        with server.login(user) as client:
            self.assertTrue(client.wait_answer(client.send(user, b"lives"))["accepted"])

    def test_a_damaged_entry_is_refused_to_its_user_alone(self):
        (one,), (two,) = users_of_core(0, 1), users_of_core(1, 1)
        server = self.flushed(one, two)
        damage_rows(server, b"needle of %d to %d" % (one, one), 3)
        server.start()
        for _ in range(2):
            with server.login(one) as client:
                self.assertEqual(client.wait_end(), "INTERNAL")
        line = server.wait_line("event=row_damaged ")
        self.assertRegex(line, f' volume={harness.partition_of(one) % 16} user={one} row="entry 1"')
        self.assertGreaterEqual(server.metric("holdfast_damaged_rows_read_total"), 2)
        self.check_lives(server, two)
        with server.login(two) as client:
            client.wait_entries(4)
        server.stop()

    def test_a_damaged_user_is_refused_and_messages_for_him_are(self):
        users = users_of_core(0, 2) + users_of_core(1, 1)
        one = users[0]
        server = self.flushed(*users)
        damage_rows(server, row_key(one, 5), len(row_key(one, 5)) + 6)
        server.start()
        with self.assertRaisesRegex(AssertionError, "INTERNAL"):
            server.login(one)
        for user in users[1:]:  # of the same core, and of another
            with server.login(user) as client:
                head = client.hello["head"]
                answer = client.wait_answer(client.send(one, b"in vain"))
                self.assertTrue(answer["accepted"])
                client.wait_answer(client.send(user, b"behind it"))
                client.wait_for(lambda: client.seq >= head + 3)
                refused = [entry for entry in client.entries if entry["form"] == "REFUSED"]
                self.assertEqual([(entry["ref_seq"], entry["code"]) for entry in refused],
                                 [(answer["seq"], wire.CODES["UNKNOWN"])])
        self.assertRegex(server.wait_line("event=row_damaged "), f'user={one} row="facts')
        server.stop()

    def test_a_damaged_row_met_by_the_flush_stops_the_server_and_its_start(self):
        one, two = users_of_core(0, 2)
        server = self.flushed(one, two, flush_interval_s=2)
        server.start()
        with server.login(one) as client:
            client.wait_answer(client.send(two, b"its head is in memory"))
            key = row_key(one, 3, struct.pack(">Q", two))
            server.wait_metric("holdfast_unflushed_entries", 0)
            damage_rows(server, key, len(key) + 6)
            client.send(two, b"and not in the volume")
            self.assertEqual(server.wait_exit(), 74)
        text = f"volume {harness.partition_of(one) % 16}, user {one}: the head of a conversation"
        self.assertTrue(server.find_lines("event=failed .*flush: " + text), server.log())
        self.expect_refused(server, "damaged: " + text)

    def test_rows_that_start_needs_are_refused(self):
        one, two = users_of_core(0, 2)
        volume = harness.partition_of(one) % 16
        for name, needle, offset, pattern in [
                ("identity", b"identity", 10, f"volume {volume}: the row `identity` is damaged"),
                ("applied", b"applied", 9, f"volume {volume}: the row `applied`: damaged")]:
            with self.subTest(name):
                server = self.flushed(one, two)
                path = os.path.join(server.data, f"volume-{volume:03}.mdb")
                with open(path, "rb") as file:
                    places = find_all(file.read(), needle)
                self.assertTrue(places)
                for at in places:
                    flip(path, at + offset)
                self.expect_refused(server, pattern)


class Restore(Case):
    """docs/operations.md, "Backup and restore"."""

    def test_a_clean_stop_marks_all_that_is_durable(self):
        user, = users_of_core(0, 1)
        server = self.make()
        server.start()
        write_notes(server, user, 5, 100)
        server.stop()
        segments = Segments(server.data)
        end = read_block(segments.paths[-1], 0)[1] + (segments.last_block() + 1) * BLOCK
        self.assertEqual(struct.unpack_from(">Q", newest_mark(segments), 24)[0], end)

    def test_restored_refuses_what_is_no_directory_and_one_in_use(self):
        server = self.make()
        restored = self.restore(server)
        self.assertEqual(restored.wait_exit(), 66)
        self.assertFalse(os.path.exists(server.data))
        server.start()
        restored = self.restore(server)
        self.assertEqual(restored.wait_exit(), 75)
        server.stop()

    def restore(self, server):
        """holdfastd --restored, as a server that ends by itself."""
        done = harness.Server(self.keys, **server.options)
        self.addCleanup(done.close)
        done.start(wait=False, extra=["--restored"])
        return done

    def run_restored(self, server):
        done = self.restore(server)
        self.assertEqual(done.wait_exit(), 0, done.log())
        line = done.find_lines("event=restored ")[0]
        return {key: int(value) for key, value in
                (pair.split("=") for pair in line.split() if pair.startswith(("epoch=", "users=")))}

    def test_restored_logs_get_a_new_epoch_and_clients_converge(self):
        users = users_of_core(0, 1) + users_of_core(1, 1)
        one, two = users
        server = self.make(flush_percent=5)
        server.start()
        clients = [server.login(user) for user in users]
        for number in range(5):
            clients[0].wait_answer(clients[0].send(two, b"kept %d" % number))
        old = clients[0].epoch
        for client in clients:
            client.leave()
        server.stop()
        backup = os.path.join(server.folder, "backup")
        shutil.copytree(server.data, backup)

        # What is lost: numbers that others were told of, and a user made since.
        server.start()
        with server.login(one) as client:
            client.wait_entries(5)
            for number in range(7):
                client.wait_answer(client.send(two, b"lost %d" % number))
            client.wait_entries(12)
            lost_cursor, lost_counter = client.cursor, client.counter
        with server.login(two) as client:
            client.wait_entries(12)
            two_cursor = client.cursor
        server.login(7777).leave()
        server.kill()
        shutil.rmtree(server.data)
        shutil.copytree(backup, server.data)

        first = self.run_restored(server)
        self.assertEqual(first["users"], 2)
        self.assertGreater(first["epoch"], old)
        again = self.run_restored(server)  # may be repeated, and only rises
        self.assertGreater(again["epoch"], first["epoch"])

        server.start()
        told = {}  # (epoch, seq) -> what: nothing is named twice
        with server.login(one, cursor=lost_cursor) as client:
            self.assertEqual((client.hello["result"], client.epoch), (wire.RESET, again["epoch"]))
            self.assertLess(client.hello["last_counter"], lost_counter)
            client.wait_entries(5)
            for number in range(7):
                answer = client.wait_answer(client.send(two, b"new %d" % number))
                self.assertTrue(answer["accepted"])
            client.wait_entries(12)
            for entry in client.entries:
                self.assertIsNone(told.setdefault((client.epoch, entry["seq"]), None))
            cursor = client.cursor
        with server.login(two, cursor=two_cursor) as client:
            self.assertEqual(client.hello["result"], wire.RESET)
            client.wait_entries(12)
            self.assertEqual([entry["body"] for entry in client.entries],
                             [b"kept %d" % n for n in range(5)] + [b"new %d" % n for n in range(7)])
            page = client.history(1, one, wire.BEFORE, 0, 20)
            self.assertEqual(len(page["entries"]), 12)
        with server.login(7777) as client:  # made anew
            self.assertEqual(client.epoch, again["epoch"])
        server.kill()

        server.start()  # and it stays so
        with server.login(one, cursor=cursor) as client:
            self.assertEqual(client.hello["result"], wire.RESUME)
            self.assertEqual(client.epoch, again["epoch"])
        server.stop()

    def test_a_store_that_was_rolled_back_in_silence_is_noticed(self):
        user, = users_of_core(0, 1)
        server = self.make()
        server.start()
        server.stop()
        backup = os.path.join(server.folder, "backup")
        with_user = server.start().login(user)
        with_user.wait_answer(with_user.send(user, b"kept"))
        with_user.close()
        server.stop()
        shutil.copytree(server.data, backup)
        server.start()
        with server.login(user) as client:
            client.wait_answer(client.send(user, b"lost"))
            client.wait_entries(2)
            cursor = client.cursor
        server.stop()
        shutil.rmtree(server.data)
        shutil.copytree(backup, server.data)
        server.start()  # nobody said --restored
        with server.login(user, cursor=cursor) as client:
            self.assertEqual(client.hello["result"], wire.RESET)
        self.assertIn("--restored", server.wait_line("event=cursor_ahead "))
        server.stop()


if __name__ == "__main__":
    harness.main()
