"""soak: clients that come and go, read history and write, retention at work: nothing may grow."""

import os

import proc
from checks import Ledger
from figures import median
from machine import Failure, cpus_allowed
from scenarios_messages import JOURNAL_BYTES

MINUTES = 30
WINDOWS_MIN, WINDOWS_MAX = 6, 48  # the load generator takes 64 steps
LOOK_S = 5                        # between two samples within a window
# Who is away for up to 20 s must find what came meanwhile: it is no older than that.
AGE_MIN_S = 40

# How much more the last third may have than the middle one; the first is the way there.
MEMORY_GROWTH, LATENCY_GROWTH = 1.05, 2.0


def windows(minutes):
    """(how many, seconds of each): a minute, where that gives enough of them."""
    count = min(max(round(minutes), WINDOWS_MIN), WINDOWS_MAX)
    return count, minutes * 60 / count


def age_s(minutes):
    """What is kept: so short that for most of the time as much goes as comes."""
    return max(int(minutes * 60 / 6), AGE_MIN_S)


def thirds(values):
    """(the middle third, the last third)."""
    size = len(values) // 3
    return values[-2 * size:-size], values[-size:]


def growth(values):
    """The last third's median to the middle third's."""
    middle, last = (median(third) for third in thirds(values))
    if not middle:
        return 2 if last else 1
    return last / middle


def folder_bytes(folder):
    """On the disk: files of a store have holes."""
    return sum(os.stat(os.path.join(folder, name)).st_blocks * 512 for name in os.listdir(folder))


class Samples:
    """What was seen of the server, a value for each window."""

    def __init__(self, server):
        self._server = server
        self._now = ([], [])
        self.memory, self.descriptors, self.data, self.trimmed = [], [], [], []

    def look(self):
        self._now[0].append(proc.anonymous_bytes(self._server.pid))
        self._now[1].append(len(os.listdir(f"/proc/{self._server.pid}/fd")))

    def end_window(self):
        self.look()
        self.memory.append(median(self._now[0]))
        self.descriptors.append(median(self._now[1]))
        self._now = ([], [])
        self.data.append(folder_bytes(self._server.data))
        self.trimmed.append(
            self._server.metrics()['holdfast_entries_trimmed_total{by="age"}'])


def run_windows(bench, load, samples, count, seconds):
    """The `measured` of each window; samples are taken meanwhile."""
    measured = []
    while len(measured) < count:
        event = load.look(LOOK_S)
        samples.look()
        if event is None or event["event"] != "measured":
            if load.silent_s() > seconds + 120:
                raise Failure(f"soak: a window of {seconds:.0f} s doesn't end")
            continue
        measured.append(event)
        samples.end_window()
        bench.say(f"soak: {len(measured)} of {count}: {samples.memory[-1] / 1e6:.1f} MB, "
                  f"{samples.descriptors[-1]:.0f} descriptors, accepted p99 "
                  f"{event['accepted_us']['p99'] / 1e3:.2f} ms, {samples.data[-1] / 1e6:.0f} MB of "
                  f"data, {samples.trimmed[-1]:,.0f} entries gone by age")
    return measured


def judge(bench, name, unit, values, most):
    """The figure is the last third's median; the run fails if that grew."""
    middle, last = thirds(values)
    bench.report.add(f"soak.{name}", unit, last, ("the middle third", median(middle)))
    if growth(values) > most:
        bench.fault(f"soak: {name} grew {growth(values):.3f} times from the middle third to the last")


def soak(bench):
    minutes = bench.minutes or (1 if bench.quick else MINUTES)
    clients, rate, churn = (600, 200, 10) if bench.quick else (20000, 2000, 100)
    count, seconds = windows(minutes)
    age = age_s(minutes)
    cores = min(2, len(cpus_allowed()))
    ledger = Ledger(bench, "soak")
    server = bench.server("soak", cores=cores, max_connections=clients + 500,
                          journal_bytes=JOURNAL_BYTES, flush_interval_s=10, retention_age_s=age)
    server.start()
    steps = ["connect", f"churn:{churn}", *[f"pace:{rate}:{seconds - 1:g}:keep"] * count, "settle",
             "leave"]
    load = bench.load(server, steps=",".join(steps), clients=clients, threads=2, warm=1,
                      cross_core=cores > 1, cores=cores, settle_timeout=180)
    connected = load.until("connected", 600)
    bench.say(f"soak: {clients:,} clients in {connected['seconds']:.0f} s; {count} windows of "
              f"{seconds:.0f} s; {churn} leave a second; entries are kept for {age} s")
    samples = Samples(server)
    measured = run_windows(bench, load, samples, count, seconds)
    code = load.finish(600)

    judge(bench, "memory", "B", samples.memory, MEMORY_GROWTH)
    judge(bench, "descriptors", "", samples.descriptors, MEMORY_GROWTH)
    for kind in ("accepted", "delivered"):
        for point in ("p50", "p99"):
            judge(bench, f"{kind}_{point}", "us", [one[f"{kind}_us"][point] for one in measured],
                  LATENCY_GROWTH)
    bench.report.add("soak.data", "B", thirds(samples.data)[1],
                     ("the middle third", median(thirds(samples.data)[0])))
    for name in ("messages", "churned", "pages"):
        bench.report.add(f"soak.{name}", name if name != "churned" else "times",
                         [sum(one[name] for one in measured)])
    bench.report.add("soak.trimmed", "entries", [samples.trimmed[-1]])
    unwanted = sum(one["lost_connections"] for one in measured)
    if unwanted:
        bench.fault(f"soak: {unwanted} connections were lost")
    if minutes * 60 >= 3 * age and not samples.trimmed[-1] > samples.trimmed[count // 2] > 0:
        bench.fault("soak: retention wasn't at work")
    ledger.take(load, code)
    ledger.report()
    bench.done(server)
