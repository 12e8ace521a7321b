"""messages: how many, closed loop, one core. paced: how fast, open loop, 50,000 clients."""

from checks import Ledger
from machine import EX_UNAVAILABLE, Failure, cpus_allowed

# No connection is to be stopped for its own rate: the whole is what is measured.
UNLIMITED = {"frames_per_s_max": 1000000, "bytes_per_s_max": 1073741824}
JOURNAL_BYTES = 256 << 20
# A burst is what the journal can take before it has to be carried off: see messages.sustained_16.
BURST_JOURNAL_BYTES = 2 << 30
WRAPS_MIN = 3


def two_cpus():
    """(the server's, the load's)."""
    cpus = cpus_allowed()
    if len(cpus) < 2:
        raise Failure("this needs two CPUs: one for the server, one for the load", EX_UNAVAILABLE)
    return {cpus[0]}, {cpus[1]}


class Windows:
    """The figures of one closed-loop load, over its runs."""

    def __init__(self, name, window):
        self.name = name
        self.window = window
        self.rates, self.cpu_ns, self.threads = [], [], {}
        self.probe_rates, self.probe_cpu_ns = [], []

    def take(self, measured):
        messages = measured["messages"]
        self.rates.append(measured["messages_per_s"])
        self.cpu_ns.append(measured["server_cpu_ns_each"])
        for thread, seconds in measured["server_threads"].items():
            self.threads.setdefault(thread, []).append(seconds * 1e9 / max(messages, 1))

    def take_probe(self, probe):
        self.probe_rates.append(probe[0])
        self.probe_cpu_ns.append(probe[1])

    def report(self, report):
        of_rate = of_cpu = None
        if self.probe_rates:
            what = f"relay raw, window {self.window}"
            of_rate = (what, sorted(self.probe_rates)[len(self.probe_rates) // 2])
            of_cpu = (what, sorted(self.probe_cpu_ns)[len(self.probe_cpu_ns) // 2])
        report.add(self.name, "messages/s", self.rates, of_rate)
        report.add(f"{self.name}.cpu_ns", "ns", self.cpu_ns, of_cpu)
        for thread, runs in sorted(self.threads.items()):
            if max(runs) >= 1:
                report.add(f"{self.name}.cpu_ns.{thread}", "ns", runs)


def check_generator(bench, measured, seconds):
    """A closed loop has no lateness: the generator is the bottleneck when it alone is busy."""
    busy = measured["server_cpu_s"] / seconds
    if measured["generator_busy"] > 0.95 and busy < 0.90:
        bench.say(f"NOTE: the generator was the bottleneck ({measured['generator_busy']:.0%} busy, "
                  f"the server {busy:.0%}): the server can do more")


def burst(bench, windows, seconds, ledger, journal_bytes, wraps=0):
    server_cpu, load_cpu = two_cpus()
    server = bench.server(windows.name, cpus=server_cpu, cores=1, max_connections=1024,
                          journal_bytes=journal_bytes, **UNLIMITED)
    server.start()
    load = bench.load(server, steps=f"connect,window:{windows.window}:{seconds},settle,leave",
                      cpus=load_cpu, cpu=min(load_cpu), clients=1000, one_way=True)
    measured = load.until("measured", seconds + 180)
    written = server.metrics()["holdfast_journal_written_bytes_total"]
    code = load.finish(300)
    check_generator(bench, measured, measured["seconds"])
    bench.say(f"{windows.name}: {measured['messages_per_s']:,.0f} messages/s; the journal was "
              f"written {written / journal_bytes:.1f} times over")
    if written < wraps * journal_bytes and not bench.quick:
        bench.fault(f"{windows.name}: the journal wrapped less than {wraps} times")
    windows.take(measured)
    ledger.take(load, code)
    bench.done(server)


def messages(bench):
    ledger = Ledger(bench, "messages")
    bursts = [Windows("messages.window_1", 1), Windows("messages.window_16", 16)]
    sustained = Windows("messages.sustained_16", 16)
    short, long = (2, 5) if bench.quick else (10, 60)
    for _ in range(bench.runs):
        for windows in bursts:
            if bench.limits:
                windows.take_probe(bench.limits.relay(1000, windows.window, min(short, 5)))
            burst(bench, windows, short, ledger, BURST_JOURNAL_BYTES)
        if bench.limits:
            sustained.take_probe(bench.limits.relay(1000, 16, min(short, 5)))
        burst(bench, sustained, long, ledger, JOURNAL_BYTES, WRAPS_MIN)
    for windows in (*bursts, sustained):
        windows.report(bench.report)
    ledger.report()


def paced(bench):
    clients, rate, seconds = (1000, 500, 5) if bench.quick else (50000, 5000, 60)
    ledger = Ledger(bench, "paced")
    cores = min(2, len(cpus_allowed()))
    server = bench.server("paced", cores=cores, max_connections=clients + 500,
                          journal_bytes=JOURNAL_BYTES, flush_interval_s=max(seconds // 3, 1))
    server.start()
    writes = [bench.limits.durable_write_us()] if bench.limits else []
    steps = ["connect", *[f"pace:{rate}:{seconds}"] * bench.runs, "settle", "leave"]
    load = bench.load(server, steps=",".join(steps), clients=clients, threads=2, warm=3,
                      cross_core=cores > 1, cores=cores, settle_timeout=120)
    connected = load.until("connected", 600)
    bench.say(f"paced: {clients:,} clients in {connected['seconds']:.0f} s")
    flushes = server.metrics()["holdfast_flushes_total"]
    runs = []
    for _ in range(bench.runs):
        runs.append(load.until("measured", seconds + 120))
        now = server.metrics()["holdfast_flushes_total"]
        if now == flushes:
            bench.fault("paced: no flush meanwhile")
        flushes = now
    code = load.finish(600)
    if bench.limits:
        writes.append(bench.limits.durable_write_us())
    of = ("p50 of one durable write of 4 KiB, before and after", sum(writes) / 2) if writes else None
    for kind in ("accepted", "delivered"):
        for point in ("p50", "p99"):
            bench.report.add(f"paced.{kind}_{point}", "us",
                             [run[f"{kind}_us"][point] for run in runs], of)
    bench.report.add("paced.rate", "messages/s", [run["messages_per_s"] for run in runs])
    ledger.take(load, code)
    ledger.report()
    bench.done(server)
