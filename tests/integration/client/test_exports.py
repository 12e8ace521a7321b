#!/usr/bin/env python3
"""What libholdfast.so exports is what holdfast.h declares, and the manual names all of it.

    test_exports.py LIBRARY HEADER MANUAL
"""
import re
import subprocess
import sys
import unittest

LIBRARY = HEADER = MANUAL = ""


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Exports(unittest.TestCase):
    def setUp(self):
        self.declared = set(re.findall(r"^HF_API [^;]*?\b(hf_\w+)\(", read(HEADER), re.M))
        self.assertGreater(len(self.declared), 20)

    def test_library_exports_what_the_header_declares_and_nothing_else(self):
        lines = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        exported = {line.split()[2].split("@")[0] for line in lines if line.split()[1] in "TDBRVW"}
        # What a sanitizer puts into every library isn't ours.
        exported = {name for name in exported if not re.match(r"_{1,3}(asan|odr|sanitizer|ubsan)",
                                                              name)}
        self.assertEqual(exported, self.declared)

    def test_manual_names_every_function(self):
        named = set(re.findall(r"^\.Fn (hf_\w+) \"", read(MANUAL), re.M))
        self.assertEqual(named, self.declared)

    def test_header_needs_no_other_of_ours_and_is_fit_for_cplusplus(self):
        text = read(HEADER)
        self.assertNotIn('#include "', text)
        self.assertIn('extern "C"', text)


if __name__ == "__main__":
    LIBRARY, HEADER, MANUAL = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1], verbosity=2)
