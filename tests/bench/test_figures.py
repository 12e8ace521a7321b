#!/usr/bin/env python3
"""Shows that scripts/measure reads probes and /proc rightly, and does its sums rightly."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
MEASURE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../scripts/measure"))
sys.path.insert(0, MEASURE)

import figures  # noqa: E402
import machine  # noqa: E402
import probes  # noqa: E402
import proc  # noqa: E402


class Sums(unittest.TestCase):
    def test_median_is_the_middle_or_the_mean_of_the_two_there(self):
        self.assertEqual(2, figures.median([3, 1, 2]))
        self.assertEqual(2.5, figures.median([4, 1, 2, 3]))
        with self.assertRaises(ValueError):
            figures.median([])

    def test_numbers_have_four_places_and_whole_ones_no_point(self):
        self.assertEqual("40364", str(figures.tidy_number(40364.0)))
        self.assertEqual("0.5123", str(figures.tidy_number(0.512345)))
        self.assertEqual("12350", str(figures.tidy_number(12345.6)))
        self.assertIsNone(figures.tidy_number(None))

    def test_slope_is_per_one_more(self):
        self.assertEqual(600, figures.slope((25000, 40e6), (50000, 55e6)))
        with self.assertRaises(ValueError):
            figures.slope((1, 1), (1, 2))

    def test_busy_share_counts_stolen_time_and_not_guests_twice(self):
        before = machine.cpu_times("cpu  100 0 100 1000 0 0 0 0 50 0\ncpu0 1 2\n")
        after = machine.cpu_times("cpu  130 0 120 1140 0 0 0 10 60 0\n")
        self.assertEqual((200, 1000, 0), before)
        self.assertAlmostEqual(0.30, machine.busy_share(before, after))


class Json(unittest.TestCase):
    def lines(self, *arguments, as_json=True):
        out = io.StringIO()
        figures.Report(as_json, out=out, err=io.StringIO()).add(*arguments)
        return out.getvalue()

    def test_figure_with_a_probe_has_its_ratio(self):
        line = self.lines("messages.window_1", "messages/s", [30000.0, 10000, 20000],
                          ("relay raw, window 1", 40000.0))
        self.assertEqual(1, line.count("\n"))
        self.assertEqual(
            {"figure": "messages.window_1", "value": 20000, "unit": "messages/s",
             "runs": [30000, 10000, 20000],
             "of": {"what": "relay raw, window 1", "value": 40000}, "ratio": 0.5},
            json.loads(line))

    def test_figure_without_a_probe_has_null(self):
        parsed = json.loads(self.lines("crash.kills", "", [50]))
        self.assertEqual((None, None), (parsed["of"], parsed["ratio"]))
        self.assertEqual(["figure", "value", "unit", "runs", "of", "ratio"], list(parsed))

    def test_probe_of_zero_gives_no_ratio(self):
        self.assertIsNone(json.loads(self.lines("x", "s", [1], ("y", 0)))["ratio"])

    def test_line_for_people_names_all(self):
        line = self.lines("idle.bytes", "B", [5000.0, 5200.0], ("probe", 4000.0), as_json=False)
        for part in ("idle.bytes", "5,100 B", "2 runs, 5,000 to 5,200", "1.275 of 4,000, probe"):
            self.assertIn(part, line)


class Probes(unittest.TestCase):
    OUTPUT = (
        "idle, never used (objects a connection x bytes each): TCP 2.00x2730\n"
        "IDLE mspoll server=4200 server_used=4221 both_ends=8100 both_ends_used=8152 rate=50000\n"
        "RELAY store=raw conns=1000 window=16 msgs_per_s=302221 accepted_p50_us=24700 p99_us=31000"
        " server_cpu_ns=2653 server_busy=99% client_busy=71% per_core=376932\n"
        "HANDSHAKE lib=mbedtls kind=full group=p256 tickets=0 server_us=1100 server_per_s=909\n"
        "HANDSHAKE lib=mbedtls kind=full group=p256 tickets=1 server_us=1154 server_per_s=866\n")

    def test_fields_are_numbers_or_words(self):
        kind, fields = probes.parse_line(self.OUTPUT.splitlines()[2])
        self.assertEqual(("RELAY", "raw", 302221, 99),
                         (kind, fields["store"], fields["msgs_per_s"], fields["server_busy"]))
        self.assertEqual(["mspoll"], probes.parse_line(self.OUTPUT.splitlines()[1])[1][""])

    def test_the_line_with_all_wanted_values_is_found(self):
        self.assertEqual(866, probes.find(self.OUTPUT, "HANDSHAKE", kind="full",
                                          tickets=1)["server_per_s"])
        self.assertEqual(4221, probes.find(self.OUTPUT, "IDLE")["server_used"])

    def test_missing_line_fails_in_words(self):
        with self.assertRaisesRegex(machine.Failure, "no RELAY"):
            probes.find(self.OUTPUT, "RELAY", store="lmdb")

    def test_probes_are_copied_built_once_and_told_of_a_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            source, root = os.path.join(folder, "limits"), os.path.join(folder, "root")
            os.makedirs(source)
            os.makedirs(root)
            self.write(source, "build.sh", "mkdir -p build; echo x >>count; cp relay build/; "
                                           "chmod +x build/relay\n")
            self.write(source, "relay", "#!/bin/sh\ntest -d \"$DATA\" || exit 1\n"
                                        "echo \"RELAY store=raw conns=$2 window=$3 msgs_per_s=7"
                                        " server_cpu_ns=9\"\n")
            limits = probes.Limits(source, root, machine.Processes(), lambda text: None)
            self.assertEqual((7, 9), limits.relay(10, 1, 1))
            self.assertEqual((7, 9), limits.relay(10, 16, 1))
            self.assertEqual(["build.sh", "relay"], sorted(os.listdir(source)))
            built = os.path.join(root, "build", "limits")
            with open(os.path.join(built, "count"), encoding="ascii") as file:
                self.assertEqual("x\n", file.read())
            self.assertEqual([], [name for name in os.listdir(built) if name.startswith("data")])

    def test_folder_without_probes_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(machine.Failure, "no build.sh"):
                probes.Limits(folder, folder, None, None)

    @staticmethod
    def write(folder, name, text):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)


class Proc(unittest.TestCase):
    SLAB = (
        "slabinfo - version: 2.1\n"
        "# name  <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n"
        "TCP                 {tcp}    120   2688   12    8 : tunables 0 0 0 : slabdata 10 10 0\n"
        "filp                {filp}    500    232   16    1 : tunables 0 0 0 : slabdata 9 9 0\n"
        "tw_sock_TCP         {tw}    10    200   16    1 : tunables 0 0 0 : slabdata 9 9 0\n"
        "proc_inode_cache    {inode}    10    700   20    4 : tunables 0 0 0 : slabdata 9 9 0\n"
        "dentry              {dentry}    10    192   16    1 : tunables 0 0 0 : slabdata 9 9 0\n"
        "eventpoll_epi       {epi}    10    128   32    1 : tunables 0 0 0 : slabdata 9 9 0\n")

    def snapshot(self, **counts):
        base = {"tcp": 100, "filp": 200, "tw": 50, "inode": 10, "dentry": 30, "epi": 5}
        return proc.parse_slabinfo(self.SLAB.format(**{**base, **counts}))

    def test_object_costs_its_share_of_slab_pages(self):
        self.assertEqual((100, 8 * 4096 / 12), self.snapshot()["TCP"])

    def test_growth_leaves_out_closing_sockets_and_inodes_of_proc(self):
        after = self.snapshot(tcp=200, tw=0, inode=14, dentry=34)
        self.assertAlmostEqual(100 * 8 * 4096 / 12, proc.kernel_growth(self.snapshot(), after))

    def test_growth_by_few_objects_is_left_out_where_asked(self):
        after = self.snapshot(tcp=200, filp=230, inode=14)
        self.assertAlmostEqual(100 * 8 * 4096 / 12, proc.kernel_growth(self.snapshot(), after, 50))
        self.assertGreater(proc.kernel_growth(self.snapshot(), after), 100 * 8 * 4096 / 12)

    def test_client_end_is_a_plain_socket_and_its_bucket(self):
        after = self.snapshot(tcp=300, epi=105)
        self.assertAlmostEqual(8 * 4096 / 12 + 256 + 256 + 128,
                               proc.client_end(self.snapshot(), after, 100))

    def test_anonymous_memory_is_read_in_bytes(self):
        text = "5570-7ffe [rollup]\nRss:  9000 kB\nPss:  8000 kB\nPss_Anon:   7000 kB\n"
        self.assertEqual(7000 * 1024, proc.smaps_field(text, "Pss_Anon"))
        self.assertGreater(proc.anonymous_bytes(os.getpid()), 0)

    def test_threads_of_one_name_are_summed(self):
        with tempfile.TemporaryDirectory() as folder:
            for thread, name, ns in (("7", "hf-door", 5), ("8", "hf-reactor", 7),
                                     ("9", "hf-door", 20)):
                path = os.path.join(folder, "7", "task", thread)
                os.makedirs(path)
                with open(os.path.join(path, "comm"), "w", encoding="ascii") as file:
                    file.write(name + "\n")
                with open(os.path.join(path, "schedstat"), "w", encoding="ascii") as file:
                    file.write(f"{ns} 1 2\n")
            self.assertEqual({"hf-door": 25, "hf-reactor": 7}, proc.thread_cpu_ns(7, folder))

    def test_new_thread_has_grown_from_nothing(self):
        self.assertEqual({"a": 2, "b": 3}, proc.grown({"a": 1}, {"a": 3, "b": 3}))


class Leavings(unittest.TestCase):
    """A measurement that ends, however, leaves no process."""

    SCRIPT = ("import sys, time; sys.path.insert(0, {0!r}); import machine, subprocess\n"
              "processes = machine.Processes()\n"
              "child = processes.start(['sleep', '600'])\n"
              "print(child.pid, flush=True)\n"
              "sys.stdin.readline()\n"
              "{1}\n")

    def child_after(self, end, number=None):
        process = subprocess.Popen([sys.executable, "-c", self.SCRIPT.format(MEASURE, end)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        watch = os.pidfd_open(int(process.stdout.readline()))
        process.stdin.write("\n")
        process.stdin.flush()
        if number is not None:
            self.signal_until_it_ends(process, number)
        process.wait(30)
        process.stdin.close()
        process.stdout.close()
        return watch

    @staticmethod
    def signal_until_it_ends(process, number):
        """Python loses an exception that a signal raises within a finalizer: one more will do."""
        for _ in range(10):
            process.send_signal(number)
            try:
                process.wait(3)
                return
            except subprocess.TimeoutExpired:
                continue

    def assert_ends(self, watch):
        self.assertTrue(select.select([watch], [], [], 30)[0])
        os.close(watch)

    def test_child_ends_with_a_normal_exit(self):
        self.assert_ends(self.child_after("sys.exit(3)"))

    def test_child_ends_with_an_exception(self):
        self.assert_ends(self.child_after("raise ValueError"))

    def test_child_ends_with_a_signal(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL):
            self.assert_ends(self.child_after("time.sleep(600)", number))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
