"""idle: what a connection costs. handshakes: what letting it in costs. storm: all at once."""

import threading
import time

import proc
from checks import Ledger
from figures import median, slope
from machine import Failure, cpus_allowed, one_scheduling_group
from scenarios_messages import JOURNAL_BYTES, two_cpus

ALWAYS_FULL = 10000000  # full handshakes before tickets are used
STORM_REST_S = 20  # after which what a storm needed must have been given back


def await_freed(seconds=60):
    """Until the sockets of an earlier run have left the kernel: their number stands still."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        count = proc.read_slabinfo().get("TCP", (0, 0))[0]
        if count == last:
            return
        last = count
        time.sleep(1)


def await_flushed(server, seconds=60):
    """Until all is in the volumes, so that what a flush leaves behind in memory is counted too."""
    end = time.monotonic() + seconds
    while server.metrics()["holdfast_unflushed_entries"] > 0:
        if time.monotonic() > end:
            raise Failure(f"{server.folder}: not flushed after {seconds} s")
        time.sleep(0.2)
    time.sleep(1)


def measure_idle(bench, count, ledger):
    """(kernel bytes of both ends, those of the client's, user bytes in all, of them the index)."""
    server = bench.server(f"idle-{count}", max_connections=count, journal_bytes=JOURNAL_BYTES,
                          flush_interval_s=10)
    server.start()
    await_freed()
    before = proc.read_slabinfo()
    load = bench.load(server, steps="connect,greet,settle,idle:3,hold,leave", clients=count,
                      threads=2, settle_timeout=120)
    load.until("begin", 900, "hold")
    after = proc.read_slabinfo()
    await_flushed(server)
    user = proc.anonymous_bytes(server.pid)
    index = server.metrics()["holdfast_unflushed_index_bytes"]
    load.release()
    ledger.take(load, load.finish(120))
    bench.done(server)
    return (proc.kernel_growth(before, after) / count, proc.client_end(before, after, count), user,
            index)


def idle(bench):
    counts = (2000, 4000) if bench.quick else (25000, 50000)
    ledger = Ledger(bench, "idle")
    slopes, fixed, kernels, totals, indexes, probes = [], [], [], [], [], []
    for _ in range(bench.runs):
        client = None
        if bench.limits:
            await_freed()
            floor, client = bench.limits.idle(counts[1])
            probes.append(floor)
        low = measure_idle(bench, counts[0], ledger)
        high = measure_idle(bench, counts[1], ledger)
        slopes.append(slope((counts[0], low[2] - low[3]), (counts[1], high[2] - high[3])))
        fixed.append(high[2] - high[3] - slopes[-1] * counts[1])
        indexes.append(high[3])
        kernels.append(high[0] - (high[1] if client is None else client))
        totals.append(kernels[-1] + slopes[-1])
    of = ("idle mspoll: the kernel's part alone", median(probes)) if probes else None
    bench.report.add("idle.connections", "connections", [counts[1]])
    bench.report.add("idle.bytes", "B", totals, of)
    bench.report.add("idle.kernel_bytes", "B", kernels, of)
    bench.report.add("idle.user_bytes", "B", slopes)
    bench.report.add("idle.fixed_bytes", "B", fixed)
    bench.report.add("idle.index_bytes", "B", indexes)
    ledger.report()


# ---- handshakes


def per_door_second(event, kind):
    """Handshakes of that kind for each CPU second of the doors; HELLO and token are in it."""
    return event[kind] / event["server_threads"]["hf-door"]


def shake(bench, seconds, kind):
    server_cpu, load_cpu = two_cpus()
    server = bench.server(f"handshakes-{kind}", cpus=server_cpu, cores=1, max_connections=4096)
    server.start()
    mark = ":resumed" if kind == "resumed" else ""
    load = bench.load(server, steps=f"flood:{seconds}{mark}", cpus=load_cpu, cpu=min(load_cpu),
                      clients=256)
    event = load.until("flood", seconds + 60)
    code = load.finish(60)
    if code:
        bench.fault(f"handshakes: the load generator ended with {code}: {load.last_words()}")
    bench.say(f"handshakes.{kind}: {event['per_s']:,.0f}/s, {event['failed']} failed; server CPU "
              + ", ".join(f"{name} {used:.2f} s" for name, used in event["server_threads"].items()))
    bench.done(server)
    return per_door_second(event, kind)


def flood(bench, seconds, ledger):
    """(p99 before, p99 while handshakes flood the door), us."""
    server_cpu, load_cpu = two_cpus()
    server = bench.server("handshakes-flood", cpus=server_cpu, cores=1, max_connections=4096)
    server.start()
    pace = f"pace:500:{seconds}"
    load = bench.load(server, steps=f"connect,{pace},hold,{pace},settle,leave", cpus=load_cpu,
                      cpu=min(load_cpu), clients=1000)
    before = load.until("measured", seconds + 120)
    load.until("begin", 30, "hold")
    other = bench.load(server, steps=f"flood:{seconds + 60}", cpus=load_cpu, below=True,
                       clients=512, first_user=9000001, source_base="127.9.0.1")
    other.until("begin", 30, "flood")
    time.sleep(2)  # the queue in front of the door fills
    load.release()
    during = load.until("measured", seconds + 120)
    metrics = server.metrics()
    other.kill()
    ledger.take(load, load.finish(120))
    shaken = sum(value for name, value in metrics.items()
                 if name.startswith("holdfast_handshakes_total{") and 'result="' in name)
    bench.say(f"handshakes.flood_p99: {before['accepted_us']['p99']:,.0f} us before, "
              f"{during['accepted_us']['p99']:,.0f} us with the flood; {shaken:,.0f} handshakes")
    bench.done(server)
    return before["accepted_us"]["p99"], during["accepted_us"]["p99"]


def handshakes(bench):
    seconds = 3 if bench.quick else 10
    ledger = Ledger(bench, "handshakes")
    rates = {"full": [], "resumed": []}
    probes = {"full": [], "resumed": []}
    floods = []
    for _ in range(bench.runs):
        if bench.limits:
            for kind, value in zip(("full", "resumed"), bench.limits.handshakes()):
                probes[kind].append(value)
        for kind, runs in rates.items():
            runs.append(shake(bench, seconds, kind))
        with one_scheduling_group(bench.say):
            floods.append(flood(bench, seconds, ledger))
    for kind, what in (("full", "handshake: full, P-256, server's side alone"),
                       ("resumed", "handshake: psk_dhe_ke, P-256, server's side alone")):
        of = (what, median(probes[kind])) if probes[kind] else None
        bench.report.add(f"handshakes.{kind}", "handshakes/door CPU s", rates[kind], of)
    bench.report.add("handshakes.flood_p99", "us", [during for _, during in floods],
                     ("p99 before the flood", median([before for before, _ in floods])))
    ledger.report()


# ---- storm


class MemoryWatch:
    """The anonymous memory of a server, looked at now and then while something goes on."""

    def __init__(self, server):
        self._pid = server.pid
        self._done = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._done.wait(0.5):
            try:
                self.peak = max(self.peak, proc.anonymous_bytes(self._pid))
            except (FileNotFoundError, ProcessLookupError):
                return

    def end(self):
        self._done.set()
        self._thread.join()
        return self.peak


def storm_run(bench, clients, kind, ledger):
    """One server, killed under load: all clients return and catch up. (the event, memory)."""
    server = bench.server(f"storm-{kind}", max_connections=clients + 500,
                          flush_interval_s=10, tls_psk_ke="true" if kind == "psk_ke" else "false")
    server.start()
    rate = min(1000, clients)
    load = bench.load(server, steps=f"connect,greet,pace:{rate}:3:keep,await-restart:600,settle,"
                      "hold,leave", clients=clients, threads=2, settle_timeout=180,
                      back_off_max=5, psk_ke=kind == "psk_ke",
                      full=ALWAYS_FULL if kind == "full" else clients // 20)
    load.until("measured", 900)
    before = proc.anonymous_bytes(server.pid)
    server.kill()
    server.start()
    watch = MemoryWatch(server)
    back = load.until("all_back", 700)
    peak = watch.end()
    load.until("begin", 300, "hold")
    await_flushed(server)
    time.sleep(STORM_REST_S)
    after = proc.anonymous_bytes(server.pid)
    load.release()
    ledger.take(load, load.finish(300))
    bench.done(server)
    bench.say(f"storm.{kind}: {clients:,} clients back in {back['seconds']:.1f} s, on "
              f"{len(cpus_allowed())} CPUs with the load; {back['resumed']:,} handshakes resumed, "
              f"{back['full']:,} full; memory {before / 1e6:.0f} MB before, {peak / 1e6:.0f} at most, "
              f"{after / 1e6:.0f} after")
    if kind == "full" and back["resumed"] or kind != "full" and back["full"] > clients // 50:
        bench.fault(f"storm.{kind}: {back['full']} full handshakes, {back['resumed']} resumed")
    return back["seconds"], before, peak, after


def storm(bench):
    clients = 1000 if bench.quick else 50000
    ledger = Ledger(bench, "storm")
    bench.report.add("storm.connections", "connections", [clients])
    for kind in ("psk_dhe_ke", "psk_ke", "full"):
        # The first kind is how clients return; the others are taken once, to compare.
        runs = [storm_run(bench, clients, kind, ledger)
                for _ in range(bench.runs if kind == "psk_dhe_ke" else 1)]
        name = "storm" if kind == "psk_dhe_ke" else f"storm.{kind}"
        bench.report.add(f"{name}.seconds", "s", [seconds for seconds, *_ in runs])
        before = ("before the storm", median([run[1] for run in runs]))
        bench.report.add(f"{name}.peak_bytes", "B", [run[2] for run in runs], before)
        bench.report.add(f"{name}.final_bytes", "B", [run[3] for run in runs], before)
    ledger.report()
