#!/usr/bin/env python3
"""
Kills holdfastd (-9) at moments of chance and of choice while clients write to each other, two
devices each: under load, in a flush, while it trims, at start, in recovery; it comes back with
another number of cores now and then. At the end every message created, those in flight at a kill
too, must be in both logs once, in order, and the logs that are read again from the start must be
those that the devices had.

    test_crash.py BUILD_DIR [KILLS]
"""

import os
import random
import shutil
import sys

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__),
                                                "../../scripts/measure")))

import checks  # noqa: E402
import machine  # noqa: E402
from killing import SMALL_JOURNAL, STEPS, kill_under_load  # noqa: E402
from load import Load  # noqa: E402
from server import Programs, Server  # noqa: E402

KILLS = 12
CORES_MAX = 2
SKIPPED = 77


def say(text):
    print(text, flush=True)


def run(build, kills, folder):
    processes = machine.Processes()
    programs = Programs(build)
    server = Server(processes, programs, folder, cores=CORES_MAX, max_connections=256,
                    **SMALL_JOURNAL)
    try:
        server.start()
    except machine.Failure as failure:
        if server.process.poll() == machine.EX_UNAVAILABLE:
            say(f"skipped: {failure}")
            return SKIPPED
        raise
    load = Load(processes, programs, server, steps=STEPS, clients=80, devices=2, back_off_max=1,
                settle_timeout=120)
    load.until("begin", 120, "hold")
    killer = kill_under_load(server, load, kills, random.SystemRandom(), CORES_MAX, say)
    load.release()
    code = load.finish(240)
    found = checks.faults(load.events)
    verified = load.all("verified")
    say(f"{killer.kills} kills: " + ", ".join(f"{count} {kind}"
                                              for kind, count in killer.counts.items()))
    if code or any(found.values()) or not verified:
        say(f"FAILED: {found}; the load generator ended with {code}: {load.last_words()}")
        return 1
    ended = server.stop()
    if ended:
        say(f"FAILED: the server ended with {ended}: {server.last_words()}")
        return 1
    say(f"{verified[-1]['created']:,} messages, each once in both logs, in order")
    return 0


def main(arguments):
    build = os.path.abspath(arguments[0])
    kills = int(arguments[1]) if len(arguments) > 1 else KILLS
    folder = os.path.join(build, "crash-test")
    shutil.rmtree(folder, ignore_errors=True)
    code = 1
    try:
        code = run(build, kills, folder)
    finally:
        if code in (0, SKIPPED):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"logs and data are in {folder}")
    return code


if __name__ == "__main__":
    machine.run_main(main)
