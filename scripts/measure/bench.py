"""The program behind scripts/bench: which names there are, and what they share."""

import argparse
import os
import shutil
import sys

import machine
import scenarios_connections
import scenarios_crash
import scenarios_crypto
import scenarios_hostile
import scenarios_messages
import scenarios_power
import scenarios_sim
import scenarios_soak
import scenarios_store
from figures import Report
from load import Load
from machine import EX_UNAVAILABLE, EX_USAGE, Failure
from probes import Limits
from server import Programs, Server

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))

# name: (function, programs that it needs)
SCENARIOS = {
    "idle": (scenarios_connections.idle, ("server", "token", "loadgen")),
    "messages": (scenarios_messages.messages, ("server", "token", "loadgen")),
    "paced": (scenarios_messages.paced, ("server", "token", "loadgen")),
    "handshakes": (scenarios_connections.handshakes, ("server", "token", "loadgen")),
    "aead": (scenarios_crypto.aead, ()),
    "storm": (scenarios_connections.storm, ("server", "token", "loadgen")),
    "hostile": (scenarios_hostile.hostile, ("server", "token", "loadgen")),
    "crash": (scenarios_crash.crash, ("server", "token", "loadgen")),
    "power": (scenarios_power.power, ("server", "token")),
    "sim": (scenarios_sim.sim, ()),
    "soak": (scenarios_soak.soak, ("server", "token", "loadgen")),
    "flush": (scenarios_store.flush, ("server", "token", "loadgen")),
    "recovery": (scenarios_store.recovery, ("server", "token", "loadgen")),
}


class Bench:
    """What all scenarios share. Fresh servers, each in a folder of its own under build/bench."""

    def __init__(self, options, report, processes):
        self.root = ROOT
        self.report = report
        self.processes = processes
        self.programs = Programs(options.build or os.path.join(ROOT, "build", "release"))
        self.quick = options.quick
        self.runs = 1 if options.quick and options.runs is None else options.runs or 3
        self.minutes = options.minutes
        self.failed = False
        self.limits = None
        self._keep = options.keep
        self._folder = os.path.join(ROOT, "build", "bench")
        self._count = 0
        if options.limits:
            self.limits = Limits(options.limits, ROOT, processes, report.say)

    def say(self, text):
        self.report.say(text)

    def server(self, name, cpus=None, **settings):
        """A server with a fresh data directory; not started."""
        self._count += 1
        folder = os.path.join(self._folder, f"{self._count:02}-{name}")
        shutil.rmtree(folder, ignore_errors=True)
        return Server(self.processes, self.programs, folder, cpus=cpus, **settings)

    def scratch(self, name):
        """An empty folder under build/bench."""
        folder = os.path.join(self._folder, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        return folder

    def load(self, server, **options):
        return Load(self.processes, self.programs, server, **options)

    def done(self, server):
        """A server isn't needed any more."""
        if server.process is not None:
            server.kill()
        if not self._keep:
            server.remove()
            os.sync()  # what a file system discards after a removal slows down what is next

    def fault(self, text):
        """Something that no run may show: said, and the exit code."""
        self.failed = True
        self.say(f"FAULT: {text}")

    def clean(self):
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False, allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--limits", metavar="DIR")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--build", metavar="DIR")
    parser.error = usage_error
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in SCENARIOS:
            usage_error(f"\"{name}\" is none of {' '.join(SCENARIOS)}")
    if options.runs is not None and not 1 <= options.runs <= 99:
        usage_error("--runs is from 1 to 99")
    if options.minutes is not None and not 0.5 <= options.minutes <= 10000:
        usage_error("--minutes is from 0.5 to 10000")
    return options


def usage_error(text):
    raise Failure(text, EX_USAGE)


def main(arguments):
    options = parse(arguments)
    report = Report(options.json)
    processes = machine.Processes()
    soft, hard = machine.raise_open_files()
    if soft != hard:
        report.say(f"limit on open files raised from {soft:,} to {hard:,}, the most allowed here")
    if not options.limits:
        report.say("no --limits: ratios to the limits of the machine are left out")
    bench = Bench(options, report, processes)
    for name in options.names:
        missing = bench.programs.missing(*SCENARIOS[name][1])
        if missing:
            raise Failure(f"{name}: this tree doesn't build {', '.join(missing)} yet",
                          EX_UNAVAILABLE)
    with machine.alone(report.say):
        report.say(machine.describe())
        quiet = machine.wait_until_quiet(report.say, 0 if options.quick else 60)
        before = machine.read_cpu_times()
        try:
            for name in options.names:
                report.say(name)
                SCENARIOS[name][0](bench)
        finally:
            bench.clean()
        stolen = machine.read_cpu_times()[2] - before[2]
    if stolen:
        report.say(f"the hypervisor took {stolen / os.sysconf('SC_CLK_TCK'):.1f} CPU seconds")
    if not quiet:
        report.say("WARNING: the machine was busy when this began: figures are low")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    machine.run_main(main)
