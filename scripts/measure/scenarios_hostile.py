"""hostile: one attack after the other, each beside 1,000 clients who lose nothing and hardly wait."""

import json
import os
import selectors
import subprocess
import sys
import time

import proc
from checks import Ledger
from machine import Failure, one_scheduling_group
from scenarios_messages import two_cpus

RATE = 500  # messages a second of the good clients
MEMORY_BYTES_MAX = 64 << 20  # beside what connections themselves cost
FIRST_USER = 9000001


class Attacker:
    """tests/hostile/attack.py, on the load's CPU, while nothing else wants that."""

    def __init__(self, bench, server, kind, cpus, connections=None):
        self._processes = bench.processes
        program = os.path.join(bench.root, "tests", "hostile", "attack.py")
        command = [sys.executable, program, kind, f"127.0.0.1:{server.port}", server.identity.ca,
                   server.identity.keys]
        if connections:
            command += [str(connections), str(FIRST_USER)]
        self._log = os.path.join(server.folder, "attack.log")
        with open(self._log, "wb") as log:
            self.process = bench.processes.start(command, cpus=cpus, below=True,
                                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                                 stderr=log)

    def wait_on(self, timeout_s):
        """Until it is under way; its connections."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise Failure(f"an attack isn't under way after {timeout_s} s")
        line = self.process.stdout.readline()
        if not line:
            with open(self._log, encoding="utf-8", errors="replace") as file:
                raise Failure(f"an attack has ended: {file.read()[-300:]}")
        return json.loads(line)["connections"]

    def kill(self):
        self._processes.kill(self.process)
        self.process.stdout.close()


def limit_hits(before, after):
    """{limit: hits} meanwhile."""
    mark = 'holdfast_limit_hits_total{limit="'
    return {name[len(mark):-2]: int(value - before.get(name, 0)) for name, value in after.items()
            if name.startswith(mark) and value > before.get(name, 0)}


def attack_one(bench, kind, seconds, ledger):
    """(p99 before, p99 during, bytes before, bytes after) of the good clients and of the server."""
    server_cpu, load_cpu = two_cpus()
    server = bench.server(f"hostile-{kind}", cpus=server_cpu, cores=1, max_connections=8192,
                          partial_timeout_s=10)
    server.start()
    pace = f"pace:{RATE}:{seconds}"
    load = bench.load(server, steps=f"connect,{pace},hold,{pace},settle,leave", cpus=load_cpu,
                      cpu=min(load_cpu), clients=1000)
    before = load.until("measured", seconds + 120)
    load.until("begin", 30, "hold")
    bytes_before = proc.anonymous_bytes(server.pid)
    metrics = server.metrics()
    attacker = Attacker(bench, server, kind, load_cpu)
    connections = attacker.wait_on(120)
    time.sleep(1)
    load.release()
    during = load.until("measured", seconds + 120)
    hits = limit_hits(metrics, server.metrics())
    bytes_during = proc.anonymous_bytes(server.pid)
    attacker.kill()
    ledger.take(load, load.finish(120))
    time.sleep(3)  # doors give back what handshakes took
    bytes_after = proc.anonymous_bytes(server.pid)
    p99s = before["accepted_us"]["p99"], during["accepted_us"]["p99"]
    bench.say(f"hostile.{kind}: {connections:,} connections; p99 {p99s[0]:,.0f} us before, "
              f"{p99s[1]:,.0f} us during; memory {bytes_before / 1e6:.1f}, "
              f"{bytes_during / 1e6:.1f}, {bytes_after / 1e6:.1f} MB before, during, after; "
              f"limits {hits or 'none'}")
    bench.done(server)
    return p99s, (bytes_before, max(bytes_during, bytes_after))


def kinds(bench):
    program = os.path.join(bench.root, "tests", "hostile", "attack.py")
    return subprocess.run([sys.executable, program, "--list"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.split()


def hostile(bench):
    seconds = 3 if bench.quick else 10
    ledger = Ledger(bench, "hostile")
    with one_scheduling_group(bench.say):
        for kind in kinds(bench):
            p99s, memory = zip(*[attack_one(bench, kind, seconds, ledger)
                                 for _ in range(1 if bench.runs < 3 else bench.runs)])
            bench.report.add(f"hostile.{kind}_p99", "us", [during for _, during in p99s],
                             ("p99 before the attack", min(before for before, _ in p99s)))
            growth = [after - before for before, after in memory]
            bench.report.add(f"hostile.{kind}_bytes", "B", growth)
            if max(growth) > MEMORY_BYTES_MAX:
                bench.fault(f"hostile: {kind} took {max(growth):,} B")
    ledger.report()
