"""aead: what sealing and opening a small record costs, by libcrypto and by mbedTLS."""

import json
import os
import subprocess

from figures import median
from machine import EX_UNAVAILABLE, Failure


def run(path):
    """{"aead.seal": ns, "aead.open": ns}, and the library's name."""
    result = subprocess.run([path], stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["figure"]: line["value"] for line in lines}, lines[0]["library"]


def aead(bench):
    folder = os.path.join(bench.programs.build, "tests", "bench")
    ours, other = (os.path.join(folder, name) for name in ("aead_bench", "aead_bench_by_mbedtls"))
    if not os.path.exists(other):
        raise Failure("aead: this build does without libcrypto: there is nothing to compare",
                      EX_UNAVAILABLE)
    runs, others = [], []
    for _ in range(bench.runs):
        figures, library = run(ours)
        runs.append(figures)
        figures, by = run(other)
        others.append(figures)
    bench.say(f"aead: {library} beside {by}")
    for name in ("aead.seal", "aead.open"):
        bench.report.add(name, "ns", [figures[name] for figures in runs],
                         (f"by {by}", median([figures[name] for figures in others])))
