"""flush: what carrying the journal into the volumes costs. recovery: how long a restart takes."""

import json
import os
import re
import shutil
import subprocess
import time

from checks import Ledger
from figures import median
from machine import Failure
from proc import thread_cpu_ns
from scenarios_messages import JOURNAL_BYTES, UNLIMITED

RECOVERED = re.compile(r"event=recovered .*?records=(\d+) bytes=(\d+)")


def written_bytes(pid):
    """What the process has had written to the device."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        for line in file:
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    raise Failure(f"/proc/{pid}/io has no write_bytes")


def look(server):
    metrics = server.metrics()
    return {"accepted": metrics["holdfast_messages_accepted_total"],
            "journal": metrics["holdfast_journal_written_bytes_total"],
            "unflushed": metrics["holdfast_unflushed_entries"],
            "flushes": metrics["holdfast_flushes_total"],
            "cpu_ns": thread_cpu_ns(server.pid).get("hf-flusher", 0),
            "device": written_bytes(server.pid)}


def per_message(before, after):
    """
    What flushing one message cost, of those that were flushed between two looks: each has two
    entries. What the device was given, less the journal, went into the volumes.
    """
    grown = {key: after[key] - before[key] for key in after}
    messages = grown["accepted"] - grown["unflushed"] / 2
    if grown["flushes"] < 1 or messages < 1:
        raise Failure("no flush ended meanwhile")
    return {"journal_bytes": grown["journal"] / grown["accepted"],
            "cpu_ns": grown["cpu_ns"] / messages,
            "device_bytes": (grown["device"] - grown["journal"]) / messages,
            "flushes": grown["flushes"]}


def parse_bare(text):
    """[(records/s of a flush, of bare LMDB puts)] of what flush_bench printed."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [(line["value"], line["of"]["value"]) for line in lines]


def flush_alone(bench):
    """The flush by itself, in turn with a bare loop of LMDB puts of the same rows."""
    program = os.path.join(bench.programs.build, "tests", "bench", "flush_bench")
    folder = bench.scratch("flush-alone")
    users, messages = (2000, 20000) if bench.quick else (100000, 500000)
    process = bench.processes.start(
        [program, folder, str(users), str(messages), "100", str(bench.runs)],
        stdout=subprocess.PIPE, text=True)
    pairs = parse_bare(process.stdout.read())
    process.stdout.close()
    bench.processes.kill(process)
    shutil.rmtree(folder, ignore_errors=True)
    if process.returncode or len(pairs) != bench.runs:
        raise Failure(f"flush_bench ended with {process.returncode}")
    bench.report.add("flush.records", "records/s", [own for own, _ in pairs],
                     ("bare LMDB puts of the same rows", median([bare for _, bare in pairs])))


def flush(bench):
    seconds = 10 if bench.quick else 60
    flush_alone(bench)
    ledger = Ledger(bench, "flush")
    runs = []
    for _ in range(bench.runs):
        server = bench.server("flush", max_connections=4096, journal_bytes=JOURNAL_BYTES,
                              flush_interval_s=5 if bench.quick else 300, **UNLIMITED)
        server.start()
        load = bench.load(server, steps=f"connect,window:16:{seconds},settle,leave", clients=2000,
                          one_way=True)
        load.until("begin", 180, "window")
        before = look(server)
        load.until("measured", seconds + 120)
        runs.append(per_message(before, look(server)))
        ledger.take(load, load.finish(300))
        bench.done(server)
    for name, unit in (("flushes", "flushes"), ("cpu_ns", "ns"), ("device_bytes", "B"),
                       ("journal_bytes", "B")):
        bench.report.add(f"flush.{name}", unit, [run[name] for run in runs])
    ledger.report()


def fill_journal(server, load, share, seconds):
    """Waits until that share of the journals is in use."""
    end = time.monotonic() + seconds
    while server.metrics()["holdfast_journal_used_bytes"] < share * JOURNAL_BYTES:
        load.drain()
        if time.monotonic() > end or load.process.poll() is not None:
            return
        time.sleep(0.05)


def recovery(bench):
    ledger = Ledger(bench, "recovery")
    seconds, sizes, rates = [], [], []
    for _ in range(bench.runs):
        server = bench.server("recovery", max_connections=4096, journal_bytes=JOURNAL_BYTES,
                              flush_percent=70, flush_interval_s=86400, **UNLIMITED)
        server.start()
        load = bench.load(server, steps="connect,window:16:0:keep,hold,settle,verify,leave",
                          clients=2000, one_way=True, settle_timeout=180)
        load.until("begin", 120, "hold")
        fill_journal(server, load, 0.05 if bench.quick else 0.6, 300)
        server.kill()
        seconds.append(server.start())
        load.release()
        ledger.take(load, load.finish(600))
        with open(server.log, encoding="utf-8", errors="replace") as file:
            records, size = map(int, RECOVERED.findall(file.read())[-1])
        sizes.append(size)
        rates.append(records / seconds[-1])
        bench.done(server)
    bench.report.add("recovery.seconds", "s", seconds)
    bench.report.add("recovery.bytes", "B", sizes)
    bench.report.add("recovery.rate", "records/s", rates)
    ledger.report()
