#!/usr/bin/env python3
"""Shows that each check of compilers.py fires on a bad file and not on a good one."""

import json
import os
import shutil
import sys
import tempfile
import unittest

import compilers

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
GOOD = "int f(int a);\nint f(int a)\n{\n    return a;\n}\n"


class Checks(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.build = os.path.join(self.root, "build", "asan")
        os.makedirs(self.build)
        for name in (".clang-format", ".clang-tidy", ".shellcheckrc"):
            shutil.copy(os.path.join(ROOT, name), self.root)
        self.write("client/x.c", GOOD)
        self.write("build/asan/compile_commands.json", json.dumps([{
            "directory": self.build, "file": "../../client/x.c",
            "command": "cc -I../.. -Wall -Werror -Wlogical-op -o x.o -c ../../client/x.c"}]))

    def tearDown(self):
        shutil.rmtree(self.root)

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def run_check(self, check):
        """(files seen, findings); skips the test where the tool is missing."""
        try:
            return check(self.root, self.build)
        except compilers.Skip as reason:
            self.skipTest(str(reason))
            raise

    def failures(self, check, path, text):
        self.write(path, text)
        return len(self.run_check(check)[1])

    def test_header_that_needs_another_fires(self):
        check = compilers.headers
        self.assertEqual(0, self.failures(check, "client/x.h", "#pragma once\n#include <stdint.h>\n"
                                                               "uint8_t f(void);\n"))
        self.assertEqual(1, self.failures(check, "client/x.h", "#pragma once\nuint8_t f(void);\n"))

    def test_header_may_include_another_by_its_path_from_the_root(self):
        self.write("proto/y.h", "#pragma once\ntypedef int y;\n")
        self.assertEqual(0, self.failures(compilers.headers, "client/x.h",
                                          '#pragma once\n#include "proto/y.h"\ny f(void);\n'))

    def test_ill_formatted_file_fires(self):
        self.assertEqual(0, self.failures(compilers.check_format, "client/x.c", GOOD))
        self.assertEqual(1, self.failures(compilers.check_format, "client/x.c", "int f( int a);\n"))

    def test_lint_finding_fires_until_it_is_gone(self):
        bad = GOOD.replace("return", "if (a)\n        a = 1;\n    return")
        self.assertEqual(0, self.failures(compilers.lint, "client/x.c", GOOD))
        self.assertEqual(1, self.failures(compilers.lint, "client/x.c", bad))
        self.assertEqual(1, self.failures(compilers.lint, "client/x.c", bad))
        self.assertEqual(0, self.failures(compilers.lint, "client/x.c", GOOD))

    def test_lint_sees_a_change_of_an_included_header(self):
        text = '#include "client/x.h"\n' + GOOD
        self.write("client/x.h", "#pragma once\n")
        self.assertEqual(0, self.failures(compilers.lint, "client/x.c", text))
        self.write("client/x.h", "#pragma once\nstatic inline int badName(void)\n{ return 1; }\n")
        self.assertEqual(1, self.failures(compilers.lint, "client/x.c", text))

    def test_lint_gives_the_warnings_of_clang_too(self):
        self.assertEqual(1, self.failures(compilers.lint, "client/x.c",
                                          GOOD + "static int unused(void)\n{\n    return 1;\n}\n"))

    def test_lint_sees_the_fuzz_targets(self):
        folder = os.path.join(self.root, "build", "fuzz")
        self.write("build/fuzz/compile_commands.json", json.dumps([{
            "directory": folder, "file": "../../tests/fuzz/y.c",
            "command": "clang -I../.. -o y.o -c ../../tests/fuzz/y.c"}]))
        self.assertEqual(1, self.failures(compilers.lint, "tests/fuzz/y.c",
                                          GOOD.replace("f(", "badName(")))

    def test_lint_that_is_clean_is_not_run_again(self):
        self.run_check(compilers.lint)
        real = compilers.clang_tool
        version = real("clang-tidy")[1]
        try:
            compilers.clang_tool = lambda _: ("/no-such-tool", version)
            self.assertEqual((1, []), self.run_check(compilers.lint))
            compilers.clang_tool = lambda _: ("/no-such-tool", version + " newer")
            with self.assertRaises(FileNotFoundError):
                self.run_check(compilers.lint)
        finally:
            compilers.clang_tool = real

    def test_shell_finding_fires(self):
        self.assertEqual(0, self.failures(compilers.shell, "scripts/x", "#!/bin/sh\necho \"$1\"\n"))
        self.assertEqual(1, self.failures(compilers.shell, "scripts/x", "#!/bin/sh\nrm $1/*\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
