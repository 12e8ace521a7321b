#!/usr/bin/env python3
"""Starting, ending, crashing, reloading; the command line; /metrics, /ready and /live.

    test_lifecycle.py HOLDFASTD HOLDFAST_TOKEN DOCS_OPERATIONS
"""
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest

import harness
import wire


class OneServer(unittest.TestCase):
    """Each test has servers of its own."""

    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)

    def make(self, **options):
        server = harness.Server(self.keys, **options)
        self.addCleanup(server.close)
        return server

    def run_program(self, *arguments, **environment):
        return subprocess.run([harness.HOLDFASTD, *arguments], capture_output=True, text=True,
                              timeout=120, check=False, env={**os.environ, **environment})


class Start(OneServer):
    def test_second_server_on_the_same_directory_is_refused(self):
        server = self.make().start()
        other = self.make(data_dir=server.data)
        other.start(wait=False)
        code = other.wait_exit()
        self.assertNotIn(code, (0, -6))
        line = other.find_lines(r"event=not_started ")[0]
        self.assertIn(str(server.process.pid), line)
        self.assertIn(server.data, line)
        client = server.login(1001)
        client.ping()
        client.leave()

    def test_address_in_use_is_refused(self):
        server = self.make().start()
        other = self.make(listen=f"127.0.0.1:{server.address[1]}")
        other.start(wait=False)
        self.assertEqual(other.wait_exit(), 69)
        self.assertTrue(other.find_lines(
            rf'event=not_started .*127.0.0.1:{server.address[1]}: another process listens there'))

    def test_what_is_missing_is_named(self):
        rows = [({"tls_cert": "/nowhere/cert.pem"}, "tls_cert.*/nowhere/cert.pem"),
                ({"tls_key": self.keys.path("ca-key.pem")}, "tls_cert .*tls_key "),
                ({"login_keys": "/nowhere/keys"}, "login_keys.*/nowhere/keys"),
                ({"data_dir": "/nowhere/there/data"}, "/nowhere/there"),
                ({"io_features_off": "teleport"}, "no feature teleport"),
                ({"journal_bytes": "4M", "cores": 16}, "journal_bytes")]
        for changes, pattern in rows:
            with self.subTest(changes):
                server = self.make(**changes)
                server.start(wait=False)
                self.assertNotIn(server.wait_exit(), (0, -6))
                self.assertTrue(server.find_lines("event=not_started .*" + pattern), server.log())
                checked = self.run_program("--check", *server.arguments())
                self.assertNotIn(checked.returncode, (0, -6))
                self.assertRegex(checked.stderr, pattern)

    def test_key_that_others_may_read_is_refused(self):
        path = self.keys.path("open.jwks")
        shutil.copyfile(self.keys.path("login.jwks"), path)
        os.chmod(path, 0o644)
        server = self.make(login_keys=path)
        server.start(wait=False)
        self.assertNotIn(server.wait_exit(), (0, -6))
        self.assertTrue(server.find_lines(r"event=not_started .*open\.jwks"))

    def test_number_of_cores_may_change_between_starts(self):
        server = self.make(cores=1).start()
        users = range(2001, 2009)
        clients = {user: server.login(user) for user in users}
        for user in users:
            clients[user].wait_answer(clients[user].send(2001, b"from %d" % user))
        clients[2001].wait_entries(8)
        for client in clients.values():
            client.close()
        for cores in (3, 2):
            server.kill()
            server.start(cores=cores)
            clients = [server.login(user) for user in users]
            for client, user in zip(clients, users, strict=True):
                client.wait_entries(8 if user == 2001 else 1)
                client.close()

    def test_first_line_says_all_versions(self):
        line = self.make().start().find_lines("event=starting ")[0]
        self.assertRegex(line, r'version=\S+ pid=\d+ tls="\w[^"]+" liburing=[\d.]+ lmdb=[\d.]+ ')

    def test_signal_while_starting_ends_it(self):
        server = self.make()
        server.start(wait=False)
        server.wait_line("event=starting ")
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait_exit(), 0)


class End(OneServer):
    def test_sigterm_tells_clients_to_leave_and_waits_for_them(self):
        server = self.make(drain_timeout_s=60, drain_spread_ms=7000).start()
        stays, leaves = server.login(1001), server.login(1002)
        server.signal(signal.SIGTERM)
        for client in (stays, leaves):
            goaway = client.expect(wire.GOAWAY)
            self.assertEqual((goaway["why"], goaway["wait_min_ms"]), (1, 0))
            self.assertEqual(goaway["wait_max_ms"], 7000)
        # It still works meanwhile.
        self.assertTrue(stays.wait_answer(stays.send(1002, b"last words"))["accepted"])
        self.assertEqual(leaves.wait_entries(1)[0]["body"], b"last words")
        self.assertEqual(server.get("/ready"), (503, "draining\n"))
        with self.assertRaises(OSError):
            server.connect()
        leaves.leave()
        stays.leave()
        self.assertEqual(server.wait_exit(), 0)
        self.assertTrue(server.find_lines("event=drained .*all_left=true"))

    def test_client_that_stays_is_ended_by_time(self):
        server = self.make(drain_timeout_s=1).start()
        client = server.login(1001)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait_exit(), 0)
        self.assertTrue(server.find_lines("event=drained .*all_left=false"))
        client.wait_end()
        client.close()

    def test_second_sigterm_ends_at_once(self):
        server = self.make(drain_timeout_s=3600).start()
        client = server.login(1001)
        server.signal(signal.SIGINT)
        client.expect(wire.GOAWAY)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait_exit(), 0)
        client.close()

    def test_login_while_draining_is_told_to_go_elsewhere(self):
        server = self.make(drain_timeout_s=60).start()
        stays = server.login(1001)
        late = server.connect()  # through the door before the signal
        server.signal(signal.SIGTERM)
        stays.expect(wire.GOAWAY)
        late.write_frame(wire.HELLO, wire.hello_payload(1002, 1, self.keys.token(1002)))
        late.expect_error("GOING_AWAY")
        stays.leave()
        self.assertEqual(server.wait_exit(), 0)

    def test_what_was_accepted_is_there_after_sigterm_and_start(self):
        server = self.make().start()
        for round_number in range(3):
            client = server.login(1001, cursor=(0, 0, 0))
            client.wait_entries(round_number)
            client.wait_answer(client.send(1001, b"%d" % round_number))
            client.leave()
            server.stop()
            server.start()
        client = server.login(1001)
        self.assertEqual([entry["body"] for entry in client.wait_entries(3)], [b"0", b"1", b"2"])
        client.close()


class Talker(threading.Thread):
    """One of two users who write to each other until the server is killed."""

    def __init__(self, server, user, peer):
        super().__init__()
        self.server, self.user, self.peer = server, user, peer
        self.client = server.login(user)
        self.accepted = {}  # nonce -> seq
        self.written = []   # nonces in order
        self.failure = None

    def run(self):
        client, waiting = self.client, {}
        try:
            while True:
                while len(waiting) < 16:
                    nonce = os.urandom(16)
                    self.written.append(nonce)
                    waiting[client.send(self.peer, nonce.hex().encode(), nonce=nonce)] = nonce
                client.take()
                for counter in [counter for counter in client.answers if counter in waiting]:
                    answer = client.answers[counter]
                    assert answer["accepted"], answer
                    self.accepted[waiting.pop(counter)] = answer["seq"]
        except (OSError, wire.Closed):
            pass
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error
        finally:
            client.close()


class Crash(OneServer):
    def check_log(self, server, talker, other):
        """Everything accepted is in the log under its seq; everything else at most once."""
        client = server.login(talker.user, 99)
        client.wait_for(lambda: client.seq >= client.hello["head"])
        own = [entry for entry in client.entries if entry["own"]]
        nonces = [entry["nonce"] for entry in own]
        self.assertEqual(len(set(nonces)), len(nonces))
        for nonce, seq in talker.accepted.items():
            self.assertEqual(client.entries[seq - 1]["nonce"], nonce)
        order = [nonce for nonce in talker.written if nonce in set(nonces)]
        self.assertEqual(nonces, order)
        client.close()
        other_client = server.login(other.user, 99)
        sent = [nonce.hex().encode() for nonce in nonces]

        def received():
            return [entry["body"] for entry in other_client.entries if not entry["own"]]
        other_client.wait_for(lambda: len(received()) >= len(sent))
        self.assertEqual(received(), sent)
        other_client.close()

    def test_kill_loses_nothing_that_was_accepted(self):
        # A small journal, so that flushes are under way.
        server = self.make(journal_bytes="4M", journal_segment_bytes="256k", flush_interval_s=1,
                           recent_bytes="64k").start()
        for round_number in range(3):
            first = 5001 + 10 * round_number
            second = first + 1
            while harness.core_of(first) == harness.core_of(second):
                second += 1
            talkers = [Talker(server, first, second), Talker(server, second, first)]
            for talker in talkers:
                talker.start()
            deadline = time.monotonic() + wire.TIMEOUT
            while min(len(talker.accepted) for talker in talkers) < 300:
                self.assertLess(time.monotonic(), deadline)
                for talker in talkers:
                    self.assertIsNone(talker.failure)
                threading.Event().wait(0.01)
            server.kill()
            for talker in talkers:
                talker.join()
                self.assertIsNone(talker.failure)
            server.start()
            self.check_log(server, talkers[0], talkers[1])
            self.check_log(server, talkers[1], talkers[0])
        self.assertGreater(server.metric("holdfast_incarnation"), 3)

    def test_resume_token_and_tls_ticket_outlive_the_process(self):
        server = self.make().start()
        client = server.login(1001)
        client.ping()
        token, session, cursor = client.hello["resume_token"], client.socket.session, client.cursor
        client.close()
        server.kill()
        server.start()
        client = server.login(1001, 1, token, cursor=cursor, session=session)
        self.assertTrue(client.socket.session_reused)
        self.assertEqual(client.hello["result"], wire.RESUME)
        client.close()


class Reload(OneServer):
    def test_sighup_under_load_brings_new_keys_and_certificate(self):
        keys = harness.Keys()
        self.addCleanup(keys.close)
        server = harness.Server(keys)
        self.addCleanup(server.close)
        server.start()
        old_context = server.context
        stays = server.login(1001)
        over, failures, count = threading.Event(), [], [0]

        def visit(number):
            while not over.is_set():
                try:
                    client = server.login(2000 + number)
                    client.ping()
                    client.leave()
                    count[0] += 1
                except (OSError, wire.Closed, AssertionError) as error:
                    failures.append(error)

        threads = [threading.Thread(target=visit, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 9):
            server.signal(signal.SIGHUP)
            server.wait_line("event=reloaded ", count=number)
        over.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(count[0], 0)

        # Another authority, certificate and log-in key.
        other = harness.Keys()
        self.addCleanup(other.close)
        for name in ("server.pem", "server-key.pem", "login.jwks", "ca.pem"):
            shutil.copyfile(other.path(name), keys.path(name))
        server.signal(signal.SIGHUP)
        server.wait_line("event=reloaded ", count=9)
        new_context = wire.tls_context(keys.path("ca.pem"))
        deadline = time.monotonic() + wire.TIMEOUT
        while True:  # each door takes them in its next turn
            try:
                for _ in range(8):  # of either core
                    server.login(3001, 1, other.token(3001), context=new_context).leave()
                break
            except (ssl.SSLError, AssertionError):
                self.assertLess(time.monotonic(), deadline)
        with self.assertRaises(ssl.SSLError):
            server.connect(context=old_context)
        with self.assertRaises(AssertionError):  # the old log-in key is gone
            server.login(3001, 1, keys.token(3001), context=new_context)
        stays.ping()
        stays.close()

    def test_sighup_with_a_broken_file_changes_nothing(self):
        keys = harness.Keys()
        self.addCleanup(keys.close)
        server = harness.Server(keys)
        self.addCleanup(server.close)
        server.start()
        with open(keys.path("server.pem"), "w", encoding="ascii") as file:
            file.write("rubbish")
        server.signal(signal.SIGHUP)
        server.wait_line("event=reload_failed .*server.pem")
        client = server.login(1001)
        client.ping()
        client.leave()


class Admin(harness.ServerTest):
    def test_pages_are_served(self):
        self.assertEqual(self.server.get("/live"), (200, "live\n"))
        self.assertEqual(self.server.get("/ready"), (200, "ready\n"))
        self.assertEqual(self.server.get("/nothing")[0], 404)
        self.assertEqual(self.server.get("/metrics", "HEAD"), (200, ""))
        self.assertEqual(self.server.get("/metrics", "POST")[0], 405)

    def test_metrics_keep_the_rules_and_count(self):
        before = self.server.metric("holdfast_messages_accepted_total")
        client = self.login(self.new_user())
        client.wait_answer(client.send(client.user, b"note"))
        client.wait_entries(1)
        self.server.wait_metric("holdfast_messages_accepted_total", before + 1)
        self.server.wait_metric("holdfast_connections", 1)
        text = self.server.get("/metrics")[1]
        seen, metric = set(), None
        for line in text.splitlines():
            if line.startswith("# HELP "):
                metric = line.split()[2]
                self.assertNotIn(metric, seen)
                seen.add(metric)
            elif line.startswith("# TYPE "):
                self.assertEqual(line.split()[2], metric)
            else:
                self.assertEqual(re.match(r"\w+", line)[0], metric)
        self.assertLessEqual({"process_resident_memory_bytes", "holdfast_build_info",
                              "holdfast_handshakes_total", "holdfast_thread_cpu_seconds_total",
                              "holdfast_tokens_total", "holdfast_journal_writes_total"}, seen)
        client.leave()
        self.server.wait_metric("holdfast_connections", 0)

    def test_admin_clients_that_say_nothing_do_not_keep_others_out(self):
        silent = [socket.create_connection(self.server.admin) for _ in range(20)]
        deadline = time.monotonic() + wire.TIMEOUT
        while True:
            try:
                self.assertEqual(self.server.get("/live"), (200, "live\n"))
                break
            except (TimeoutError, ConnectionError):
                self.assertLess(time.monotonic(), deadline)
        for connection in silent:
            connection.close()


class CommandLine(OneServer):
    def test_check_says_ok_and_leaves_nothing(self):
        server = self.make()
        checked = self.run_program("--check", *server.arguments())
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "OK\n", ""))
        self.assertFalse(os.path.exists(server.data))
        server.start()
        checked = self.run_program("--check", *server.arguments())  # while one runs
        self.assertEqual((checked.returncode, checked.stdout), (0, "OK\n"))

    def test_check_sees_that_the_volumes_do_not_fit(self):
        server = self.make()
        server.start()
        checked = self.run_program("--check", *server.arguments(volumes=32))
        self.assertEqual(checked.returncode, 78)
        self.assertIn("volumes", checked.stderr)

    def test_flag_wins_over_environment_over_file(self):
        server = self.make()
        path = os.path.join(server.folder, "holdfast.conf")

        def cores_refused_as(text, *flags, **environment):
            with open(path, "w", encoding="ascii") as file:
                file.write("# a file\n\ncores = 17\n")
            done = self.run_program("--check", "--config", path, *flags, *server.arguments(cores=None),
                                    **environment)
            self.assertEqual(done.returncode, 78)
            self.assertIn(text, done.stderr)

        cores_refused_as("cores = 17:")
        cores_refused_as("cores = 18:", HOLDFAST_CORES="18")
        cores_refused_as("cores = 19:", "--cores", "19", HOLDFAST_CORES="18")
        done = self.run_program("--check", *server.arguments(cores=None), HOLDFAST_CONFIG=path)
        self.assertIn("cores = 17", done.stderr)

    def test_wrong_usage_is_told(self):
        rows = [(["--nonsense"], 64, "--nonsense: no such option"),
                (["--cores"], 64, "--cores: needs a value"),
                (["--cores=65"], 64, "--cores=65: cores = 65: must be from 0 to 64"),
                (["extra"], 64, "extra: no such option"),
                (["--config"], 64, "--config"),
                (["--config", "/nowhere/x.conf"], 66, "/nowhere/x.conf")]
        for arguments, code, text in rows:
            with self.subTest(arguments):
                done = self.run_program(*arguments)
                self.assertEqual((done.returncode, done.stdout), (code, ""))
                self.assertTrue(done.stderr.startswith("holdfastd: "))
                self.assertIn(text, done.stderr)
        done = self.run_program("--check", HOLDFAST_CORES="x")
        self.assertEqual(done.returncode, 78)
        self.assertIn("HOLDFAST_CORES: cores = x: not a number", done.stderr)

    def test_version_and_help(self):
        version = self.run_program("--version")
        self.assertEqual(version.returncode, 0)
        self.assertRegex(version.stdout, r"holdfastd \d.*\nMbed TLS 3\.6.*\nrecords by (OpenSSL|Mbed TLS) "
                                         r"3.*\nliburing \d.*\nLMDB 0\.9")
        shown = self.run_program("--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertIn("--handshake-timeout-ms", shown.stdout)

    def test_table_in_the_documentation_is_the_program_s(self):
        table = self.run_program("--config-table").stdout
        with open(DOCUMENT, encoding="utf-8") as file:
            self.assertIn(table, file.read(),
                          "docs/operations.md: put in what holdfastd --config-table prints")


if __name__ == "__main__":
    DOCUMENT = sys.argv[3]
    harness.main(extra=1)
