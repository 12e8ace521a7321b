"""sim: the simulator over many seeds, and the deliberate bugs that it must catch."""

import os
import re
import subprocess

from machine import EX_UNAVAILABLE, Failure

CLOSING = re.compile(r"^(\d+) seeds good, (\d+) failed", re.M)
MUTANTS = re.compile(r"^(\d+) of (\d+) bugs found$", re.M)
MUTANT_SEEDS = 2000


def parse_closing(text):
    """(good, failed) of the simulator's closing line."""
    match = None
    for match in CLOSING.finditer(text):
        pass
    if match is None:
        raise Failure(f"the simulator said nothing of seeds:\n{text[-2000:]}")
    return int(match[1]), int(match[2])


def run(bench, program, *arguments):
    process = bench.processes.start([program, *arguments], stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True)
    text = process.stdout.read()
    process.stdout.close()
    bench.processes.kill(process)
    return process.returncode, text


def sim(bench):
    folder = os.path.join(bench.programs.build, "tests", "sim")
    program = os.path.join(folder, "sim_fast")
    if not os.path.exists(program):
        raise Failure("sim: this tree doesn't build the simulator yet", EX_UNAVAILABLE)
    seeds = 100 if bench.quick else 5000
    _, text = run(bench, program, "--seeds", str(seeds))
    good, failed = parse_closing(text)
    bench.report.add("sim.seeds", "seeds", [good + failed])
    bench.report.add("sim.failed", "seeds", [failed])
    if failed or good + failed < seeds:
        bench.fault(f"the simulator:\n{text}")
    code, text = run(bench, os.path.join(folder, "sim_mutant"), "--mutants", "--seeds",
                     str(MUTANT_SEEDS))
    match = MUTANTS.search(text)
    if match is None:
        raise Failure(f"sim_mutant said nothing of bugs:\n{text[-2000:]}")
    bench.report.add("sim.mutants", "bugs", [int(match[2])])
    bench.report.add("sim.mutants_caught", "bugs", [int(match[1])])
    if code:
        bench.fault(f"a deliberate bug isn't caught:\n{text}")
