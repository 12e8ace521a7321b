"""power: power cuts under the real server, and each of its calls made to fail."""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(HERE, "../../tests/power")
CLOSING = re.compile(r"^seed \d+: (\d+) power cuts in .*, (\d+) wrong", re.M)
SERVED = re.compile(r"^seed \d+: (\d+) images served", re.M)


def run(bench, program, *arguments):
    process = bench.processes.start([sys.executable, "-B", os.path.join(TESTS, program),
                                     bench.programs.build, *arguments],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        bench.say(line.rstrip("\n"))
    process.stdout.close()
    code = process.wait()
    bench.processes.kill(process)
    return code, "".join(lines)


def power(bench):
    code, text = run(bench, "run", *(["--short"] if bench.quick else []))
    closings = [(int(one[1]), int(one[2])) for one in CLOSING.finditer(text)]
    bench.report.add("power.images", "images", [sum(images for images, _ in closings)])
    bench.report.add("power.wrong", "images", [sum(wrong for _, wrong in closings)])
    bench.report.add("power.served", "images",
                     [sum(int(one[1]) for one in SERVED.finditer(text))])
    if code:
        bench.fault(f"power: exit code {code}")
    code, text = run(bench, "test_faults.py", *([] if bench.quick else ["--all"]))
    if code:
        bench.fault(f"power: a failing call: exit code {code}")
