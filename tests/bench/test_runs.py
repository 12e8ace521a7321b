#!/usr/bin/env python3
"""Shows that scripts/measure understands what the programs say, with a program in their place."""

import io
import os
import random
import stat
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
MEASURE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../scripts/measure"))
sys.path.insert(0, MEASURE)

import checks  # noqa: E402
import demo  # noqa: E402
import killing  # noqa: E402
import load  # noqa: E402
import machine  # noqa: E402
import scenarios_messages  # noqa: E402
import scenarios_sim  # noqa: E402
import scenarios_soak  # noqa: E402
import scenarios_store  # noqa: E402
import server  # noqa: E402
from figures import Report  # noqa: E402


def reading(event="settled", complete=True, **counts):
    zeros = dict.fromkeys((*checks.NAMED, *checks.OTHERS), 0)
    return {"event": event, "complete": complete, "created": 10, **zeros, **counts}


class Faults(unittest.TestCase):
    def test_good_run_has_none(self):
        self.assertFalse(any(checks.faults([reading(), reading("verified")]).values()))

    def test_fault_of_either_reading_counts_once(self):
        found = checks.faults([reading(lost=2, gaps=1), reading("verified", lost=3, doubled=1)])
        self.assertEqual({"lost": 3, "doubled": 1, "reordered": 0, "other": 1, "incomplete": 0},
                         found)

    def test_run_that_was_not_read_is_incomplete(self):
        self.assertEqual(1, checks.faults([])["incomplete"])
        self.assertEqual(1, checks.faults([reading(complete=False)])["incomplete"])

    def test_ledger_reports_each_run_and_every_fault_fails(self):
        class Bench:
            def __init__(self):
                self.out = io.StringIO()
                self.report = Report(False, out=self.out, err=io.StringIO())
                self.faults = []

            def fault(self, text):
                self.faults.append(text)

        class Run:
            def __init__(self, *events):
                self.events = events

            def last_words(self):
                return "its last words"

        for events, code, faults in (((reading(),), 0, 0), ((reading(lost=1),), load.BROKEN, 1),
                                     ((reading(),), load.VOID, 1), ((reading(),), 69, 1),
                                     ((reading(lost=1),), 0, 1), ((), 0, 1)):
            bench = Bench()
            ledger = checks.Ledger(bench, "paced")
            ledger.take(Run(*events), code)
            ledger.report()
            self.assertEqual(faults, len(bench.faults), (events, code))
            self.assertIn("paced.reordered", bench.out.getvalue())


class Soak(unittest.TestCase):
    def test_windows_are_minutes_but_never_too_few_nor_too_many(self):
        self.assertEqual((30, 60), scenarios_soak.windows(30))
        self.assertEqual((6, 10), scenarios_soak.windows(1))
        self.assertEqual((48, 75), scenarios_soak.windows(60))

    def test_last_third_is_held_against_the_middle_one(self):
        self.assertEqual(([3, 4], [5, 6]), scenarios_soak.thirds([1, 2, 3, 4, 5, 6]))
        self.assertEqual(([3, 4], [5, 6]), scenarios_soak.thirds([0, 1, 2, 3, 4, 5, 6]))
        self.assertEqual(1.5, scenarios_soak.growth([90, 90, 2, 2, 3, 3]))
        self.assertEqual(1, scenarios_soak.growth([5, 5, 0, 0, 0, 0]))
        self.assertGreater(scenarios_soak.growth([5, 5, 0, 0, 1, 1]), 1.5)

    def test_what_grew_fails(self):
        class Bench:
            def __init__(self):
                self.report = Report(False, out=io.StringIO(), err=io.StringIO())
                self.faults = []

            def fault(self, text):
                self.faults.append(text)

        for values, faults in (([9, 100, 105], 0), ([9, 100, 106], 1), ([200, 100, 50], 0)):
            bench = Bench()
            scenarios_soak.judge(bench, "memory", "B", values, 1.05)
            self.assertEqual(faults, len(bench.faults), values)


class Metrics(unittest.TestCase):
    def test_cores_are_summed_and_other_labels_kept(self):
        values = server.parse_metrics(
            "# HELP a x\n# TYPE a counter\na{core=\"0\"} 3\na{core=\"1\"} 4\n"
            "b_total{result=\"ok\",core=\"0\"} 5\nb_total{result=\"bad\",core=\"0\"} 1\nc 0.5\n")
        self.assertEqual(7, values["a"])
        self.assertEqual(6, values["b_total"])
        self.assertEqual(5, values["b_total{result=\"ok\"}"])
        self.assertEqual(0.5, values["c"])


class Sums(unittest.TestCase):
    def test_windows_keep_the_median_probe_beside_their_runs(self):
        windows = scenarios_messages.Windows("messages.window_16", 16)
        for rate, cpu in ((100, 9), (300, 7), (200, 8)):
            windows.take({"messages": 10, "messages_per_s": rate, "server_cpu_ns_each": cpu,
                          "server_threads": {"hf-reactor": 4e-8, "hf-door": 0}})
            windows.take_probe((rate * 2, cpu / 2))
        out = io.StringIO()
        report = Report(False, out=out, err=io.StringIO())
        windows.report(report)
        rate, cpu, *threads = report.figures
        self.assertEqual((200, 0.5), (rate.value, rate.ratio))
        self.assertEqual(("messages.window_16.cpu_ns", 8, 2), (cpu.name, cpu.value, cpu.ratio))
        self.assertEqual([("messages.window_16.cpu_ns.hf-reactor", 4)],
                         [(one.name, round(one.value, 6)) for one in threads])

    def test_flush_counts_what_was_flushed_and_takes_the_journal_off(self):
        before = {"accepted": 0, "journal": 0, "unflushed": 0, "flushes": 0, "cpu_ns": 0,
                  "device": 0}
        after = {"accepted": 1000, "journal": 300000, "unflushed": 400, "flushes": 2,
                 "cpu_ns": 8e6, "device": 1100000}
        self.assertEqual({"journal_bytes": 300, "cpu_ns": 10000, "device_bytes": 1000,
                          "flushes": 2}, scenarios_store.per_message(before, after))
        with self.assertRaises(machine.Failure):
            scenarios_store.per_message(before, {**after, "flushes": 0})

    def test_lone_flush_gives_pairs(self):
        self.assertEqual([(10, 20), (11, 22)], scenarios_store.parse_bare(
            '{"figure": "flush.records", "value": 10, "of": {"what": "x", "value": 20}}\n'
            'words\n{"value": 11, "of": {"value": 22}}\n'))

    def test_simulator_is_counted_by_its_last_line(self):
        self.assertEqual((4998, 2), scenarios_sim.parse_closing(
            "FAILED: x\n     12  crashes\n4998 seeds good, 2 failed, in 60 s\n"))
        with self.assertRaises(machine.Failure):
            scenarios_sim.parse_closing("Segmentation fault\n")


class Killing(unittest.TestCase):
    def test_plan_has_every_kind_often_enough(self):
        kinds = killing.plan(60, random.Random(1))
        self.assertEqual(60, len(kinds))
        for kind in killing.KINDS:
            self.assertEqual(12, kinds.count(kind))

    def test_thread_that_waits_for_work_is_told_from_one_that_works(self):
        pid = os.getpid()
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            self.assertEqual([str(pid)], killing.threads_named(pid, file.read().strip()))
        try:
            working = killing.is_working(pid, [str(pid)])
        except PermissionError:
            self.skipTest("/proc/PID/syscall isn't for us")
        self.assertTrue(working or os.geteuid() != 0)
        self.assertFalse(killing.is_working(pid, []))


class Room(unittest.TestCase):
    PLENTY = {"memory": 64 << 30, "files": 1 << 30, "open_files": 20000, "cpus": 2}

    def test_machine_with_room_gets_all_and_no_excuse(self):
        self.assertEqual((50000, None), demo.clients_allowed(50000, self.PLENTY))

    def test_each_shortage_names_itself(self):
        for fact, value, word in (("memory", 1 << 30, "memory"), ("files", 40000, "more open files"),
                                  ("open_files", 1024, "a process"), ("cpus", 1, "one CPU")):
            clients, why = demo.clients_allowed(50000, {**self.PLENTY, fact: value})
            self.assertLess(clients, 50000)
            self.assertEqual(0, clients % 1000)
            self.assertIn(word, why)

    def test_machine_without_room_is_refused(self):
        with self.assertRaises(machine.Failure):
            demo.clients_allowed(50000, {**self.PLENTY, "memory": 1 << 20})


class Loading(unittest.TestCase):
    """A script stands where the load generator would."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.processes = machine.Processes()

    def tearDown(self):
        self.processes.stop_all()
        self.folder.cleanup()

    def start(self, script, **options):
        program = os.path.join(self.folder.name, "loadgen", "holdfast-loadgen")
        os.makedirs(os.path.dirname(program))
        with open(program, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(program, stat.S_IRWXU)

        class Identity:
            ca, keys = "ca.pem", "keys.jwks"

        class Server:
            folder, port, identity, process = self.folder.name, 1, Identity, None

        return load.Load(self.processes, server.Programs(self.folder.name), Server, **options)

    def test_options_become_flags(self):
        run = self.start("echo \"$@\" >&2\n", steps="connect,leave", clients=10, one_way=True,
                         gather=False, threads=None)
        self.assertEqual(0, run.finish(30))
        self.assertEqual("run connect,leave --json --server 127.0.0.1:1 --server-name localhost "
                         "--ca ca.pem --login-keys keys.jwks --kid measure --clients 10 --one-way",
                         run.last_words())

    def test_events_come_one_by_one_however_they_are_cut(self):
        run = self.start("printf '{\"event\":\"a\"}\\n{\"ev'; sleep 0.1\n"
                         "printf 'ent\":\"begin\",\"step\":\"hold\"}\\n'; exit 65\n", steps="x")
        self.assertEqual("hold", run.until("begin", 30, "hold")["step"])
        self.assertEqual(load.BROKEN, run.finish(30))
        self.assertEqual([{"event": "a"}], run.all("a"))

    def test_early_end_gives_its_last_words(self):
        run = self.start("echo it broke >&2\n", steps="x")
        with self.assertRaisesRegex(machine.Failure, "ended early: it broke"):
            run.until("measured", 30)
        run.kill()

    def test_silence_ends_it(self):
        run = self.start("exec sleep 600\n", steps="x")
        with self.assertRaisesRegex(machine.Failure, "said nothing"):
            run.next(0.2)
        self.assertIsNotNone(run.process.poll())

    def test_release_sends_the_signal_that_it_waits_for(self):
        run = self.start("trap 'exit 7' USR1\necho '{\"event\":\"begin\",\"step\":\"hold\"}'\n"
                         "while :; do sleep 0.05; done\n", steps="hold")
        run.until("begin", 30, "hold")
        run.release()
        self.assertEqual(7, run.finish(30))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
