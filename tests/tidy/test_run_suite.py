#!/usr/bin/env python3
"""Shows that scripts/run-suite counts what cmocka and other programs print, and misses no failure."""

import importlib.machinery
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../scripts/run-suite"))


def load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("run_suite", SCRIPT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_suite", loader))
    loader.exec_module(module)
    return module


GROUP = """[==========] Running 3 test(s).
[ RUN      ] good
[       OK ] good
[ RUN      ] other
[       OK ] other
[ RUN      ] last
[       OK ] last
[==========] 3 test(s) run.
[  PASSED  ] 3 test(s).
"""
MIXED = """[==========] Running 3 test(s).
[ RUN      ] good
[       OK ] good
[ RUN      ] bad
[  FAILED  ] bad
[ RUN      ] skips
[  SKIPPED ] skips
[==========] 3 test(s) run.
[  ERROR   ] --- 0x1 != 0x2
[  PASSED  ] 1 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] skips
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] bad
"""
DIED = """[==========] Running 2 test(s).
[ RUN      ] good
[       OK ] good
[ RUN      ] dies
"""


class Count(unittest.TestCase):
    def count(self, result, text):
        return load().count(result, text)

    def test_cmocka_counts_its_cases(self):
        self.assertEqual((3, 0, 0), self.count("OK", GROUP))
        self.assertEqual((6, 0, 0), self.count("OK", GROUP + GROUP))
        self.assertEqual((1, 1, 1), self.count("FAIL", MIXED))

    def test_newer_cmocka_names_its_groups(self):
        named = MIXED.replace("] Running", "] one: Running").replace("] 3 test", "] one: 3 test")
        named = named.replace("] 1 test(s), l", "] one: 1 test(s), l")
        self.assertEqual((1, 1, 1), self.count("FAIL", named))

    def test_crash_counts_the_case_that_died(self):
        self.assertEqual((1, 1, 0), self.count("FAIL", DIED))
        self.assertEqual((2, 2, 1), self.count("FAIL", MIXED + DIED))

    def test_leak_after_the_last_case_is_a_failure(self):
        self.assertEqual((3, 1, 0), self.count("FAIL", GROUP + "ERROR: LeakSanitizer\n"))

    def test_time_out_is_a_failure(self):
        self.assertEqual((0, 1, 0), self.count("TIMEOUT", ""))
        self.assertEqual((1, 1, 0), self.count("TIMEOUT", DIED))

    def test_other_program_is_one(self):
        self.assertEqual((1, 0, 0), self.count("OK", "seeds: 2000\n"))
        self.assertEqual((0, 1, 0), self.count("FAIL", "2000 tests passed\n"))
        self.assertEqual((0, 0, 1), self.count("SKIP", "no io_uring\n"))

    def test_unknown_result_of_a_program_is_a_failure(self):
        self.assertEqual((0, 1, 0), self.count("ERROR", "x\n"))
        self.assertEqual((0, 1, 0), self.count("UNEXPECTEDPASS", "x\n"))


class Run(unittest.TestCase):
    """With a program in meson's place, which writes the log that it is told."""

    def run_with(self, tests, code):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "build/meson-logs"))
            log = os.path.join(folder, "build/meson-logs/testlog.json")
            meson = os.path.join(folder, "meson")
            with open(meson, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\n")
                if tests is not None:
                    lines = "\n".join(json.dumps(test) for test in tests)
                    file.write(f"cat >{log} <<'END'\n{lines}\nEND\n")
                file.write(f"exit {code}\n")
            os.chmod(meson, stat.S_IRWXU)
            tally = os.path.join(folder, "tally")
            result = subprocess.run(
                [sys.executable, SCRIPT, tally, os.path.join(folder, "build")], text=True,
                check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": folder + ":" + os.environ["PATH"]})
            with open(tally, encoding="utf-8") as file:
                return result.returncode, file.read(), result.stdout

    def test_good_run_prints_closing_lines(self):
        code, tally, output = self.run_with(
            [{"name": "a", "result": "OK", "returncode": 0, "stdout": GROUP, "stderr": ""},
             {"name": "b", "result": "OK", "returncode": 0, "stdout": "x\nall well\n"}], 0)
        self.assertEqual((0, "4 0 0\n"), (code, tally))
        self.assertIn("\n[  PASSED  ] 3 test(s).\n", "\n" + output)
        self.assertIn("b: all well\n", output)
        self.assertNotIn("[ RUN      ]", output)

    def test_failure_shows_its_log(self):
        code, tally, output = self.run_with(
            [{"name": "a", "result": "FAIL", "returncode": 1, "stdout": MIXED, "stderr": "why\n",
              "command": ["a/b"]}], 1)
        self.assertEqual((1, "1 1 1\n"), (code, tally))
        self.assertIn("[  FAILED  ] bad\n", output)
        self.assertIn("why\n", output)

    def test_meson_that_fails_without_a_failed_test_is_a_failure(self):
        code, tally, _ = self.run_with(None, 3)
        self.assertEqual((1, "0 1 0\n"), (code, tally))


class Stages(unittest.TestCase):
    """scripts/test itself, with programs that do nothing in the place of those that it calls."""

    def run_with(self, run_suite):
        with tempfile.TemporaryDirectory() as folder:
            scripts = os.path.join(folder, "scripts")
            os.makedirs(scripts)
            for name in ("test", "common.sh"):
                shutil.copy(os.path.join(os.path.dirname(SCRIPT), name), scripts)
            for name, text in (("setup", "#!/bin/sh\n"), ("build", "#!/bin/sh\n"),
                               ("run-suite", run_suite)):
                with open(os.path.join(scripts, name), "w", encoding="utf-8") as file:
                    file.write(text)
                os.chmod(os.path.join(scripts, name), stat.S_IRWXU)
            result = subprocess.run(
                [os.path.join(scripts, "test"), "--quick"], text=True, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            return result.returncode, result.stdout.splitlines()[-1]

    def test_stages_are_added_up(self):
        self.assertEqual((0, "6 passed, 0 failed"), self.run_with(
            "import sys\nopen(sys.argv[1], 'a').write('3 0 0\\n')\n"))

    def test_stage_that_tells_of_its_failure_counts_it_once(self):
        self.assertEqual((1, "6 passed, 2 failed"), self.run_with(
            "import sys\nopen(sys.argv[1], 'a').write('3 1 0\\n')\nsys.exit(1)\n"))

    def test_stage_that_dies_before_it_counts_is_a_failure(self):
        self.assertEqual((1, "3 passed, 1 failed"), self.run_with(
            "import sys\nif '--no-suite' in sys.argv: sys.exit(1)\n"
            "open(sys.argv[1], 'a').write('3 0 0\\n')\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
