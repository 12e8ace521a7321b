#!/usr/bin/env python3
"""Shows that each rule of tidy.py fires on a small bad tree, and stays quiet on a good one."""

import os
import re
import sys
import tempfile
import unittest

import rules
import tidy

HEADER = "/*\n * x: what it does.\n *\n * Owner    one.\n * Thread   any.\n * Errors   none.\n */\n"
HEADER += "#pragma once\n"
GOOD = {
    "core/base/check.h": "/*\n * check: x.\n *\n * Thread   Any.\n */\n#pragma once\nvoid f(void);\n",
    "proto/frame.h": HEADER + '#include <stdint.h>\n#include "core/base/check.h"\n',
    "store/record.h": HEADER + "#include <stdbool.h>\nstruct record {\n    int a;\n};\n",
    "store/volume.c": "#include <lmdb.h>\n#include <unistd.h>\n",
    "core/io/ring.h": HEADER + "#include <liburing.h>\n",
    "core/tls/aead.c": "#include <mbedtls/gcm.h>\n",
    "core/engine/engine.c": '#include <string.h>\n#include "proto/frame.h"\n'
                            '#include "store/record.h"\n',
    "core/server/node.c": '#include <time.h>\n#include "core/engine/engine.h"\n'
                          '#include "store/record.h"\n#include "core/io/ring.h"\n',
    "core/engine/engine.h": HEADER + "int engine_free(int at_time(void));\n",
    "core/main.c": '#include "core/server/node.h"\n',
    "core/server/node.h": HEADER,
    "tests/unit/base/test_base.c": '#include <cmocka.h>\n#include "core/server/node.h"\n'
                                   "void f(void) { assert(1); }\n",
    "README.md": "# Hold fast\n\n[see](docs/a.md#a-heading-of-it) and [web](https://x.example/)\n",
    "docs/a.md": "# A `heading` of it\n\n[up](../README.md#hold-fast) [here](#a-heading-of-it)\n"
                 "```\n[not](a-link.md)\n```\n",
}


class Rules(unittest.TestCase):
    fired = set()

    def found_in(self, changes):
        """(path, line, rule) of what GOOD with these files added or replaced gives."""
        found = tidy.findings({**GOOD, **changes})
        self.fired.update(rule for _, _, rule, _ in found)
        return [(path, line, rule) for path, line, rule, _ in found]

    def expect(self, rule, path, text, line=1):
        found = self.found_in({path: text})
        self.assertIn((path, line, rule), found)

    def expect_none(self, path, text):
        self.assertEqual([], self.found_in({path: text}))

    def setUp(self):
        # The exceptions of the real tree name files that these small ones lack.
        self.saved = (rules.LONG_FILES, rules.HEADERS_USED)
        rules.LONG_FILES = {}
        rules.HEADERS_USED = {"core/engine": {"store/record.h": "redo records"}}

    def tearDown(self):
        rules.LONG_FILES, rules.HEADERS_USED = self.saved

    def test_good_tree_has_no_findings(self):
        self.assertEqual([], self.found_in({}))

    def test_table_of_rooms_goes_downwards_only(self):
        for room, (floor, used) in rules.ROOMS.items():
            for other in used:
                self.assertLess(rules.ROOMS[other][0], floor, f"{room} uses {other}")

    def test_file_in_no_room_fires(self):
        self.expect("room", "core/extra/x.c", "int x;\n")
        self.expect("room", "core/other_main.c", "int x;\n")

    def test_include_of_a_higher_floor_fires(self):
        self.expect("floors", "proto/frame.c", '#include "core/engine/engine.h"\n')
        self.expect("floors", "core/base/check.c", '#include "proto/frame.h"\n')

    def test_include_of_the_same_floor_fires(self):
        self.expect("floors", "core/tls/x.c", '\n#include "proto/frame.h"\n', line=2)

    def test_include_of_an_unlisted_lower_room_fires(self):
        self.expect("floors", "client/x.c", '#include "store/record.h"\n')
        self.expect("floors", "loadgen/x.c", '#include "core/engine/engine.h"\n')
        self.expect("floors", "core/engine/x.c", '#include "core/io/ring.h"\n')

    def test_only_the_listed_header_of_the_store_is_open_to_the_engine(self):
        found = self.found_in({"store/volume.h": HEADER,
                               "core/engine/x.c": '#include "store/volume.h"\n'})
        self.assertIn(("core/engine/x.c", 1, "floors"), found)

    def test_include_in_a_comment_or_string_is_none(self):
        self.expect_none("proto/x.c", '/*\n#include "core/engine/engine.h"\n*/\n'
                                      '// #include <lmdb.h>\n')

    def test_include_that_is_no_path_from_the_root_fires(self):
        self.expect("include-form", "proto/x.c", '#include "frame.h"\n')
        self.expect("include-form", "proto/x.c", "#include <proto/frame.h>\n")

    def test_library_outside_its_room_fires(self):
        self.expect("library", "core/engine/x.c", "#include <liburing.h>\n")
        self.expect("library", "client/x.c", "#include <liburing/io_uring.h>\n")
        self.expect("library", "core/server/x.c", "#include <mbedtls/ssl.h>\n")
        self.expect("library", "core/server/x.c", "#include <psa/crypto.h>\n")
        self.expect("library", "core/server/x.c", "#include <lmdb.h>\n")
        self.expect("library", "core/tls/x.c", "#include <openssl/ssl.h>\n")
        self.expect("library", "core/io/x.c", "#include <assert.h>\n")

    def test_banned_system_header_fires(self):
        self.expect("system-header", "core/tls/x.c", "#include <sys/socket.h>\n")
        self.expect("system-header", "store/x.c", "#include <netinet/in.h>\n")

    def test_impure_header_in_the_engine_fires(self):
        for header in ("time.h", "pthread.h", "sys/uio.h", "unistd.h", "stdatomic.h", "stdio.h"):
            self.expect("pure", "core/engine/x.c", f"#include <{header}>\n")
        self.expect("pure", "proto/x.c", "#include <stdlib.h>\n")
        self.expect("pure", "store/journal_plan.c", "#include <fcntl.h>\n")

    def test_impure_header_reached_through_another_room_fires(self):
        found = self.found_in({"store/record.h": HEADER + "#include <time.h>\n"})
        self.assertIn(("core/engine/engine.c", 3, "pure"), found)

    def test_each_banned_call_fires_in_its_files(self):
        paths = ["client/x.c", "core/engine/x.c", "proto/x.c", "tests/unit/x.c"]
        for files, pattern, _ in rules.BANS:
            path = next(path for path in paths if re.match(files, path))
            names = re.search(r"\(\?:([\w|]+)\)\\s", pattern.pattern)[1]
            for name in names.split("|"):
                with self.subTest(name=name, path=path):
                    self.expect("ban", path, f"void f(void)\n{{\n    (void){name} (1);\n}}\n", line=3)

    def test_banned_call_elsewhere_is_allowed(self):
        self.expect_none("core/server/x.c", "void f(void) { g(malloc(1), time(NULL)); }\n")
        self.expect_none("tests/x.c", "void f(void) { assert(free); free(p); }\n")

    def test_name_that_only_contains_a_banned_one_is_allowed(self):
        self.expect_none("core/engine/x.c", "int a = slab_free(s) + s->free(1) + s.time(2);\n"
                                            "_Static_assert(1, \"malloc(3)\"); /* strcpy(x) */\n")

    def test_allocation_after_start_fires(self):
        for name in ("malloc", "free", "mmap"):
            self.expect("allocation", "core/engine/x.c",
                        f"void x_open(void)\n{{\n}}\nvoid x_turn(int a,\n  int b)\n{{\n{name}(1);\n}}\n",
                        line=7)
        self.expect("allocation", "core/server/reactor_x.c", "void x_turn(void)\n{\nfree(1);\n}\n",
                    line=3)
        self.expect("allocation", "store/index.c", "void *x = calloc(1, 2);\n")

    def test_allocation_at_start_is_allowed(self):
        self.expect_none("core/engine/x.c",
                         "static int f(void)\n{\n}\n\nbool x_open(struct x *x, size_t size)\n{\n"
                         "    if (size) {\n        x->y = malloc(1);\n    }\n}\n"
                         "void x_close(struct x *x)\n{\n    free(x->y);\n}\n")
        self.expect_none("core/server/door.c", "void x(void)\n{\nfree(1);\n}\n")

    def test_long_file_fires_unless_listed(self):
        long = "\n" * (rules.LINES_MAX + 1)
        self.expect("length", "client/x.c", long, line=rules.LINES_MAX)
        self.expect_none("client/x.c", long[1:])
        rules.LONG_FILES = {"client/x.c": "a table"}
        self.expect_none("client/x.c", long)
        self.expect("stale-exception", "client/x.c", "\n")

    def test_header_without_guard_fires(self):
        self.expect("header-guard", "tests/lib/x.h", "int x;\n")

    def test_header_without_opening_comment_fires(self):
        self.expect("header-comment", "client/x.h", "#pragma once\n")
        self.expect("header-comment", "client/x.h", "/**/\n#pragma once\n")

    def test_header_comment_must_name_thread_and_errors_of_functions(self):
        for label in rules.LABELS_OF_FUNCTIONS:
            self.expect("header-comment", "client/x.h",
                        HEADER.replace(label, "Xyz") + "\nvoid f(int a,\n       int b);\n")
            self.expect("header-comment", "client/x.h",
                        HEADER.replace(label, "Xyz") + "static inline int *f(void)\n{\n}\n")
            self.expect_none("client/x.h", HEADER.replace(label, "Xyz") + "#define A(x) g(x)\n")

    def test_private_header_needs_only_its_purpose(self):
        self.expect_none("client/x_internal.h", "/*\n * x: y.\n */\n#pragma once\nvoid f(void);\n")
        self.expect("header-comment", "client/x_private.h", "#pragma once\nvoid f(void);\n")

    def test_header_comment_must_name_the_owner_of_structs(self):
        self.expect("header-comment", "client/x.h",
                    HEADER.replace("Owner", "Xyz") + "struct a {\n};\n")
        self.expect_none("client/x.h", HEADER.replace("Owner", "Xyz").replace("any.", "Any. Pure.")
                         + "struct a {\n};\n")
        self.expect_none("client/x.h", HEADER.replace("Owner", "Xyz") + "enum a {\n    B,\n};\n")

    def test_header_of_floor_0_must_name_its_thread(self):
        self.expect("header-comment", "core/base/x.h",
                    HEADER.replace("Thread", "Xyz") + "void f(void);\n")
        self.expect_none("core/base/x.h", HEADER.replace("Errors", "Xyz") + "void f(void);\n")

    def test_banned_words_fire_in_any_text_file(self):
        for text in ("/wor" "k/x", "see .librar" "y", "a helper " "session", "TO" "DO: later",
                     "session of " "ours", "http://deb.debia" "n.org/x", "archive.ubunt" "u.com",
                     "pyp" "i.org"):
            for path in ("docs/x.md", "scripts/x", "client/x.c"):
                self.expect("word", path, f"a\n{text}\n", line=2)
        self.expect_none("scripts/x", "mktemp x.XXXX" "XX; out/work/; a.library; Debian\n")

    def test_link_to_nothing_fires(self):
        self.expect("link", "docs/x.md", "see\n[a](b.md)\n", line=2)
        self.expect("link", "docs/x.md", "[a](a.md#no-such)\n")
        self.expect("link", "docs/x.md", "![a](no-picture.png)\n")
        self.expect("link", "docs/x.md", "[a](#nowhere)\n")
        self.expect_none("docs/x.md", "[a](a.md) [b](.) [c](../core/) [d](mailto:a@b.example)\n")

    def test_rules_document_names_what_is_there(self):
        tree = {
            "core/engine/send.c": "#define KEPT 1\nstatic int repeat(int a,\n                  int b)\n{\n"
                                  "    if (HF_MUTANT(LATE)) {\n    }\n    return other(a);\n}\n",
            "tests/unit/engine/test_send.c": "static void it_waits(void **state)\n{\n}\n",
            "tests/power/test_x.py": "class X:\n    def test_it(self):\n        pass\n",
            "tests/power/meson.build": "test('power', x)\n",
        }
        good = ("# Rules\n\nA `free: text`.\n\n| rule | kept by | noticed by |\n|---|---|---|\n"
                "| a `code` rule | `engine/send.c: repeat, KEPT` and so on | "
                "`engine/test_send.c: it_waits`, `mutant: LATE`, `test: power` |\n"
                "| another | `core/engine/send.c: repeat` | `power/test_x.py: test_it` |\n")
        self.assertEqual([], self.found_in({**tree, "docs/rules.md": good}))
        for old, new in (("repeat, KEPT", "repeat, other"), ("KEPT` and", "KEPT`, `x.c: y` and"),
                         ("it_waits", "it_slept"), ("LATE", "EARLY"), ("test: power", "test: powe"),
                         ("`engine/send.c: repeat, KEPT`", "the engine"), ("another |", "another"),
                         ("`power/test_x.py: test_it`", "`test_it`")):
            bad = good.replace(old, new, 1)
            self.assertNotEqual(good, bad)
            found = self.found_in({**tree, "docs/rules.md": bad})
            self.assertEqual({"rules-document"}, {rule for _, _, rule in found}, (old, found))

    def test_tree_is_read_without_what_is_built(self):
        with tempfile.TemporaryDirectory() as root:
            for path in ("build/a.c", "build-x/a.c", ".deps/a.c", ".git/a", "core/build/a.c", "b.md"):
                os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write("x\n")
            with open(os.path.join(root, "binary"), "wb") as file:
                file.write(b"\xff\xfe\x00")
            self.assertEqual(["b.md", "core/build/a.c"], sorted(tidy.read_tree(root)))

    def test_zz_every_rule_has_fired(self):
        with open(tidy.__file__, encoding="utf-8") as file:
            named = set(re.findall(r"(?:, |^\s+)\"([a-z-]+)\",\s*(?:f?['\"]|$)", file.read(), re.M))
        self.assertGreaterEqual(len(named), 12)
        self.assertEqual(set(), named - self.fired)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
