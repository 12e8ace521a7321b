"""crash: kill -9 again and again under load; every message created is once in both logs, in order."""

import random

from checks import Ledger
from killing import SMALL_JOURNAL, STEPS, kill_under_load
from machine import cpus_allowed


def crash(bench):
    kills = 5 if bench.quick else 300
    cores = min(2, len(cpus_allowed()))
    ledger = Ledger(bench, "crash")
    server = bench.server("crash", cores=cores, max_connections=1024, **SMALL_JOURNAL)
    server.start()
    load = bench.load(server, steps=STEPS, clients=400, devices=2, back_off_max=1,
                      settle_timeout=180)
    load.until("begin", 120, "hold")
    killer = kill_under_load(server, load, kills, random.SystemRandom(), cores, bench.say)
    load.release()
    code = load.finish(600)
    created = load.all("verified")[-1]["created"] if load.all("verified") else 0
    bench.say("crash: killed "
              + ", ".join(f"{count} in {kind}" for kind, count in killer.counts.items())
              + f"; {created:,} messages")
    bench.report.add("crash.kills", "kills", [killer.kills])
    bench.report.add("crash.messages", "messages", [created])
    bench.report.add("crash.start_seconds", "s", killer.starts_s)
    ledger.take(load, code)
    ledger.report()
    for kind in ("flush", "trim", "recovery"):
        if not killer.counts[kind] and not bench.quick:
            bench.fault(f"crash: no kill came in a {kind}")
    bench.done(server)
