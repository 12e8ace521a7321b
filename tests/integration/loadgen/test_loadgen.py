#!/usr/bin/env python3
"""holdfast-loadgen against a real server: scenarios, kill -9 under load, and what it must not overlook.

    test_loadgen.py HOLDFASTD HOLDFAST_TOKEN HOLDFAST_LOADGEN
"""
import json
import os
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness  # noqa: E402

LOADGEN = sys.argv[3]
OK, USAGE, DATAERR, UNAVAILABLE, VOID, INTERRUPTED = 0, 64, 65, 69, 80, 130
FAULTS = ["lost", "doubled", "reordered", "gaps", "damaged", "unknown", "refused", "resets", "diverged",
          "protocol"]
TIMEOUT = 240


class Run:
    """One run of the generator, and the events that it has told of so far."""

    def __init__(self, keys, port, *arguments, clients=200, ca=True, **options):
        options = {"server": f"127.0.0.1:{port}", "login-keys": keys.path("issuer.jwks"),
                   "kid": "hs", "clients": clients, "full": 20, "warm": 0.2, "for": 0.5, **options}
        if ca:
            options["ca"] = keys.path("ca.pem")
        command = [LOADGEN, *arguments, "--json"]
        for name, value in options.items():
            command.append("--" + name.replace("_", "-"))
            if value is not True:
                command.append(str(value))
        self.events = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.words = ""
        self.readers = [threading.Thread(target=self.read_events, daemon=True),
                        threading.Thread(target=self.read_words, daemon=True)]
        for reader in self.readers:
            reader.start()

    def read_events(self):
        for line in self.process.stdout:
            with self.changed:
                self.events.append(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self.events.append(None)
            self.changed.notify_all()

    def read_words(self):
        self.words = self.process.stderr.read()

    def all(self, event, **values):
        return [one for one in self.events if one and one["event"] == event and
                all(one.get(key) == value for key, value in values.items())]

    def wait(self, event, count=1, **values):
        """Until that event has come so often; the last of them."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.all(event, **values)) >= count or
                                  self.events[-1:] == [None], TIMEOUT)
            found = self.all(event, **values)
        if len(found) < count:
            raise AssertionError(f"no {event} {values}: {self.events} {self.words}")
        return found[count - 1]

    def end(self):
        """The exit code."""
        code = self.process.wait(TIMEOUT)
        for reader in self.readers:
            reader.join(TIMEOUT)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        self.process.stdout.close()
        self.process.stderr.close()


class LoadgenCase(harness.ServerTest):
    OPTIONS = {"frames_per_s_max": 1000000, "bytes_per_s_max": 1073741824}
    first_user = 1000001

    def run_loadgen(self, *arguments, server=None, **options):
        """New users each time: logs are read from their start."""
        LoadgenCase.first_user += 10000
        run = Run(self.keys, (server or self.server).address[1], *arguments,
                  **{"first_user": LoadgenCase.first_user, **options})
        self.addCleanup(run.close)
        return run

    def assert_clean(self, run, event="settled"):
        self.assertEqual(run.end(), OK, run.words)
        found = run.wait(event)
        self.assertTrue(found["complete"])
        self.assertEqual({name: found[name] for name in FAULTS}, dict.fromkeys(FAULTS, 0))
        self.assertGreater(found["created"], 0)
        self.assertEqual(found["answered"], found["created"])
        return found


class LoadgenTest(LoadgenCase):
    def test_connect_counts_full_and_resumed_handshakes(self):
        run = self.run_loadgen("connect", handshakes=4)
        self.assertEqual(run.end(), OK, run.words)
        connected = run.wait("connected")
        self.assertEqual(connected["clients"], 200)
        self.assertEqual(connected["full"] + connected["resumed"], 200)
        self.assertGreaterEqual(connected["full"], 20)
        self.assertLess(connected["full"], 30)
        self.assertGreater(connected["server_threads"]["hf-door"], 0)

    def test_pairs_keep_their_window(self):
        run = self.run_loadgen("pairs", window=8, **{"for": 3})
        found = self.assert_clean(run)
        self.assertEqual(found["own_entries"], found["created"])
        measured = run.wait("measured")
        self.assertGreater(measured["messages"], 0)
        self.assertGreater(measured["accepted_us"]["p50"], 0)
        self.assertGreaterEqual(measured["delivered_us"]["max"], measured["delivered_us"]["p50"])

    def test_gathered_sends_arrive(self):
        self.assert_clean(self.run_loadgen("pairs", window=16, gather=True, body=700))

    def test_largest_bodies_arrive(self):
        self.assert_clean(self.run_loadgen("pairs", window=2, body=15000, clients=20))

    def test_paced_messages_reach_all_devices_on_both_cores(self):
        run = self.run_loadgen("pairs", rate=200, devices=2, threads=2,
                               cross_core=True, cores=2)
        found = self.assert_clean(run)
        self.assertEqual(found["own_entries"], 2 * found["created"])
        self.assertEqual(found["peer_entries"], 2 * found["created"])
        measured = run.wait("measured")
        self.assertLess(measured["messages"], 1000)

    def test_storm_brings_all_back_by_resumption(self):
        run = self.run_loadgen("storm", settle_timeout=120)
        self.assert_clean(run)
        storm = run.wait("storm")
        self.assertEqual((storm["clients"], storm["resumed"]), (200, 200))

    def test_idle_tells_the_servers_memory(self):
        run = self.run_loadgen("idle")
        self.assert_clean(run)
        memory = run.wait("memory")
        self.assertEqual(memory["clients"], 200)
        self.assertGreater(memory["server_anonymous"], 1 << 20)

    def test_flood_logs_in_again_and_again(self):
        for mark, kind in (("", "full"), (":resumed", "resumed")):
            with self.subTest(kind=kind):
                run = self.run_loadgen("run", f"flood:1{mark}", clients=20, handshakes=4)
                self.assertEqual(run.end(), OK, run.words)
                self.assertGreater(run.wait("flood")[kind], 0)

    def test_ledger_has_a_line_for_each_client(self):
        path = os.path.join(self.server.folder, "ledger")
        self.assert_clean(self.run_loadgen("pairs", ledger=path, devices=2))
        with open(path, encoding="ascii") as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual(len(lines), 200)
        for line in lines:
            self.assertEqual(line["own_in_log"], line["created"])
            self.assertEqual(line["peer_in_log"], line["peer_created"])
            self.assertEqual(line["unanswered"], 0)

    def test_generator_as_bottleneck_voids_the_run(self):
        """Nothing keeps this schedule; whether a thread is seen busy is up to the machine."""
        for _ in range(3):
            run = self.run_loadgen("run", "connect,pace:99999999:1", clients=20, late=1)
            code = run.end()
            measured = run.wait("measured")
            self.assertGreater(measured["late_percent"], 1)
            self.assertEqual(measured["void"], measured["generator_busy"] > 0.95)
            self.assertEqual(code, VOID if measured["void"] else OK, run.words)
            if measured["void"]:
                self.assertIn("void", run.words)
                return
        self.skipTest("the machine has no CPU to spare")

    def test_interrupt_ends_the_run_with_its_own_code(self):
        run = self.run_loadgen("verify", rate=50, clients=20)
        run.wait("begin", step="hold")
        run.process.send_signal(signal.SIGINT)
        self.assertEqual(run.end(), INTERRUPTED)
        self.assertEqual(run.wait("done")["exit"], INTERRUPTED)

    def test_certificate_is_checked(self):
        run = self.run_loadgen("connect", server_name="elsewhere.example", connect_timeout=2,
                               clients=2)
        self.assertEqual(run.end(), UNAVAILABLE)
        self.assertIn("first reason: ", run.words)
        self.assertNotIn("first reason: none", run.words)


class ChurnTest(LoadgenCase):
    """Clients that are away for many seconds."""

    def test_churned_clients_come_back_and_read_their_history(self):
        run = self.run_loadgen("run", "connect,churn:40:20,pace:200:3:keep,settle,leave")
        self.assert_clean(run)
        measured = run.wait("measured")
        self.assertGreater(measured["churned"], 0)
        self.assertGreater(measured["pages"], 0)
        self.assertEqual(measured["lost_connections"], 0)
        self.assertEqual(run.all("lost"), [])


class OwnServerTest(LoadgenCase):
    """Tests that kill their server."""

    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)

    def setUp(self):
        self.server = harness.Server(self.keys, **self.OPTIONS)
        self.addCleanup(self.server.close)
        self.server.start()

    def restart(self):
        host, port = self.server.address
        self.server.start(listen=f"{host}:{port}")

    def test_kill_under_load_loses_and_doubles_nothing(self):
        for traffic in ({"rate": 400}, {"window": 4}):
            with self.subTest(traffic=traffic):
                run = self.run_loadgen("verify", devices=2, threads=2,
                                       back_off_max=1, settle_timeout=120, **traffic)
                run.wait("begin", step="hold")
                for kill in range(2):
                    self.server.kill()
                    self.restart()
                    back = run.wait("all_back", kill + 1)
                    self.assertEqual((back["clients"], back["resumed"]), (200, 200))
                run.process.send_signal(signal.SIGUSR1)
                self.assert_clean(run)
                self.assert_clean(run, "verified")
                self.assertEqual(len(run.all("lost")), 2)

    def test_script_awaits_a_restart(self):
        run = self.run_loadgen("run", "connect,pace:200:1:keep,await-restart:100,settle,verify",
                               back_off_max=1)
        run.wait("measured")
        self.server.kill()
        self.restart()
        self.assert_clean(run)
        self.assert_clean(run, "verified")

    def test_server_that_lost_its_data_is_found_out(self):
        run = self.run_loadgen("verify", rate=100, clients=20, back_off_max=1, settle_timeout=5)
        run.wait("begin", step="hold")
        self.server.kill()
        os.rename(self.server.data, self.server.data + ".away")
        self.restart()
        run.wait("all_back")
        run.process.send_signal(signal.SIGUSR1)
        self.assertEqual(run.end(), DATAERR, run.words)
        settled = run.wait("settled")
        self.assertGreaterEqual(settled["resets"], 20)

    def test_server_that_stays_away_is_unavailable(self):
        run = self.run_loadgen("verify", rate=100, clients=20, back_off_max=1, settle_timeout=3)
        run.wait("begin", step="hold")
        self.server.kill()
        run.wait("lost")
        run.process.send_signal(signal.SIGUSR1)
        self.assertEqual(run.end(), UNAVAILABLE, run.words)
        self.restart()

    def test_server_that_leaves_in_order_is_waited_for(self):
        run = self.run_loadgen("verify", rate=100, clients=20, back_off_max=1)
        run.wait("begin", step="hold")
        self.server.stop()
        self.restart()
        run.wait("all_back")
        run.process.send_signal(signal.SIGUSR1)
        self.assert_clean(run, "verified")


class UsageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.keys = harness.Keys()
        cls.addClassCleanup(cls.keys.close)

    def run_loadgen(self, *arguments, port=1, **options):
        run = Run(self.keys, port, *arguments, **{"clients": 2, **options})
        self.addCleanup(run.close)
        return run

    def test_nobody_there_is_unavailable(self):
        run = self.run_loadgen("connect", connect_timeout=1)
        self.assertEqual(run.end(), UNAVAILABLE)
        self.assertIn("0 of 2 clients", run.words)

    def test_remote_server_needs_consent(self):
        run = self.run_loadgen("connect", server="192.0.2.1:7443")
        self.assertEqual(run.end(), USAGE)
        self.assertIn("--allow-remote", run.words)

    def test_wrong_key_name_is_told(self):
        run = self.run_loadgen("connect", kid="nobody")
        self.assertNotEqual(run.end(), OK)
        self.assertIn("nobody", run.words)

    def test_help_names_every_exit_code(self):
        done = subprocess.run([LOADGEN, "--help"], capture_output=True, text=True, timeout=30,
                              check=True)
        for code in (DATAERR, UNAVAILABLE, VOID, INTERRUPTED):
            self.assertIn(str(code), done.stdout)

    def test_version_is_told(self):
        done = subprocess.run([LOADGEN, "--version"], capture_output=True, text=True, timeout=30,
                              check=True)
        self.assertRegex(done.stdout, r"^holdfast-loadgen \d+\.\d+\.\d+\n$")


if __name__ == "__main__":
    harness.main(extra=1)
