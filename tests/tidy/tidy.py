#!/usr/bin/env python3
"""Checks the tree against the rules of rules.py, without a compiler.

    tidy.py ROOT

Prints one line a finding, "path:line: rule: message", and exits with 1 if there is any. The rules
themselves are tested by test_tidy.py: each must fire on a bad tree, and stay quiet on a good one.
"""

import os
import re
import sys

import rules

FOLDERS_IGNORED = {".git", ".deps", ".demo", "__pycache__"}
TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(?:<([^>\n]+)>|\"([^\"\n]+)\")", re.M)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.M)
FUNCTION = re.compile(r"^(?!typedef|_Static_assert|static_assert|return)[A-Za-z_][\w\s*]*?\b\w+\s*\(",
                      re.M)
DEFINITION = re.compile(r"^[A-Za-z_][\w\s*]*?\b(\w+)\s*\([^;{}]*\)\s*\{", re.M)
STRUCT = re.compile(r"^(?:struct|union)\s+\w+\s*\{", re.M)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
REFERENCE = re.compile(r"([\w./-]+): (\w+(?:, \w+)*)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.S | re.M)


class Source:
    """A C file: its text, and the same without comments, and without comments and strings."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.room = room_of(path)
        self.code = TOKEN.sub(self._blank, text)
        self.includes = []  # (line, name, is_system)
        comments_gone = TOKEN.sub(
            lambda token: self._blank(token) if token[0][0] == "/" else token[0], text)
        for match in INCLUDE.finditer(comments_gone):
            self.includes.append((line_of(text, match.start()), match[1] or match[2],
                                  match[1] is not None))

    @staticmethod
    def _blank(token):
        if token[0][0] == "/":
            return "\n" * token[0].count("\n") or " "
        return token[0][0] * 2


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def room_of(path):
    """The room's name; "tests"; or None for a C file that stands in no room."""
    if path in rules.ROOMS:
        return path
    folder = os.path.dirname(path)
    while folder:
        if folder in rules.ROOMS or folder == rules.TESTS:
            return folder
        folder = os.path.dirname(folder)
    return None


def read_tree(root):
    """{path: text} of every text file, paths from the root with slashes."""
    tree = {}
    for folder, folders, files in os.walk(root):
        at_root = os.path.samefile(folder, root)
        folders[:] = sorted(name for name in folders if name not in FOLDERS_IGNORED
                            and not (at_root and name.startswith("build")))
        for name in sorted(files):
            path = os.path.join(folder, name)
            if os.path.islink(path) or name in FOLDERS_IGNORED:
                continue
            try:
                with open(path, encoding="utf-8") as file:
                    tree[os.path.relpath(path, root).replace(os.sep, "/")] = file.read()
            except UnicodeDecodeError:
                pass
    return tree


def check_rooms(tree, sources):
    """Includes go to lower floors, and only where the table says."""
    for source in sources.values():
        if source.room is None:
            yield source.path, 1, "room", "stands in no room of tests/tidy/rules.py"
            continue
        for line, name, is_system in source.includes:
            if is_system:
                if name in tree:
                    yield source.path, line, "include-form", f'include "{name}", ours, in quotes'
                continue
            if name not in tree:
                yield (source.path, line, "include-form",
                       f'"{name}" is no path from the root: libraries go in <>')
                continue
            if source.room == rules.TESTS:
                continue
            room = room_of(name)
            used = rules.ROOMS[source.room][1] + [source.room, "core/base"]
            if room not in used and name not in rules.HEADERS_USED.get(source.room, {}):
                uses = ", ".join(rules.ROOMS[source.room][1]) or "only core/base"
                yield (source.path, line, "floors",
                       f"{source.room} may not use {room} ({name}); it uses {uses}")


def check_libraries(_, sources):
    for source in sources.values():
        if source.room in (None, rules.TESTS):
            continue
        for line, name, is_system in source.includes:
            if not is_system:
                continue
            for pattern, rooms, instead in rules.LIBRARIES:
                if re.match(pattern, name) and source.room not in rooms:
                    yield source.path, line, "library", f"<{name}> in {source.room}: {instead}"
            for room, pattern, why in rules.HEADERS_BANNED:
                if source.room == room and re.match(pattern, name):
                    yield source.path, line, "system-header", f"<{name}> in {room}: {why}"


def system_includes(source, sources, seen):
    """Yields (line in this file, header, through which file) of all that it includes in the end."""
    for line, name, is_system in source.includes:
        if is_system:
            yield line, name, source.path
        elif name in sources and name not in seen:
            seen.add(name)
            for _, header, through in system_includes(sources[name], sources, seen):
                yield line, header, through


def check_pure(_, sources):
    for source in sources.values():
        for pattern, extra, why in rules.PURE:
            if not re.match(pattern, source.path):
                continue
            for line, header, through in system_includes(source, sources, {source.path}):
                # Of what is reached through others: their allocation is theirs to answer for.
                if header not in rules.PURE_HEADERS and header not in extra:
                    by = "" if through == source.path else f" (through {through})"
                    yield source.path, line, "pure", f"<{header}>{by}: {why}"


def check_bans(_, sources):
    for source in sources.values():
        for files, pattern, instead in rules.BANS:
            if not re.match(files, source.path):
                continue
            for match in pattern.finditer(source.code):
                name = match[0].rstrip("( \t\n")
                yield (source.path, line_of(source.code, match.start()), "ban",
                       f"{name}: use {instead}")


def check_allocation(_, sources):
    """A room that takes its memory at start does so in functions that are named for it."""
    for source in sources.values():
        if not re.match(rules.NO_ALLOCATION, source.path):
            continue
        definitions = [(match.start(), match[1]) for match in DEFINITION.finditer(source.code)]
        for match in rules.ALLOCATION.finditer(source.code):
            inside = [name for start, name in definitions if start < match.start()]
            if not inside or not re.match(rules.START_UP_FUNCTION, inside[-1]):
                name = match[0].rstrip("( \t\n")
                yield (source.path, line_of(source.code, match.start()), "allocation",
                       f"{name} in {inside[-1] if inside else 'no function'}: take the memory at"
                       " start, in a function named _open or _init; then use slabs and arenas")


def check_exceptions(_, sources):
    """An exception that a file no longer needs is a hole in the rule."""
    for path in rules.LONG_FILES:
        if path in sources and sources[path].text.count("\n") <= rules.LINES_MAX:
            yield path, 1, "stale-exception", "no longer too long: remove it from rules.py"


def check_length(_, sources):
    for source in sources.values():
        lines = source.text.count("\n")
        if lines > rules.LINES_MAX and source.path not in rules.LONG_FILES:
            yield (source.path, rules.LINES_MAX, "length",
                   f"{lines} lines: a file past {rules.LINES_MAX} wants a wall")


def check_headers(_, sources):
    """The opening comment says what a caller must know."""
    for source in sources.values():
        if not source.path.endswith(".h"):
            continue
        if "#pragma once" not in source.code:
            yield source.path, 1, "header-guard", "has no #pragma once"
        if source.room == rules.TESTS:
            continue
        opening = re.match(r"/\*\n \* \S.*?\*/", source.text, re.S)
        if opening is None:
            yield source.path, 1, "header-comment", "doesn't open with a comment of its purpose"
            continue
        if re.match(rules.PRIVATE_HEADER, source.path):
            continue
        code = DIRECTIVE.sub("", source.code)
        wanted = []
        if FUNCTION.search(code):
            wanted += rules.LABELS_OF_FUNCTIONS
        if STRUCT.search(code) and not re.search(r"^ \* Thread\s.*\bPure\b", opening[0], re.M):
            wanted += rules.LABELS_OF_STRUCTS
        if source.room == "core/base":
            wanted = [label for label in wanted if label == "Thread"]
        for label in wanted:
            if not re.search(rf"^ \* {label}\s+\S", opening[0], re.M):
                yield source.path, 1, "header-comment", f'its opening comment has no "{label}"'


def check_words(tree, _):
    for path, text in tree.items():
        for pattern, why in rules.WORDS_BANNED:
            for match in re.finditer(pattern, text):
                yield path, line_of(text, match.start()), "word", f"{match[0]}: {why}"


def anchors_of(text):
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    anchors = set()
    for heading in re.findall(r"^#+[ \t]+(.+?)[ \t]*#*$", FENCE.sub("", text), re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
        number = 0
        while anchor + (f"-{number}" if number else "") in anchors:
            number += 1
        anchors.add(anchor + (f"-{number}" if number else ""))
    return anchors


def check_links(tree, _):
    paths = set(tree)
    for path in list(tree):
        while path := os.path.dirname(path):
            paths.add(path)
    for path, text in tree.items():
        if not path.endswith(".md"):
            continue
        prose = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
        for match in LINK.finditer(prose):
            target = match[1] or match[2]
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            where = path
            if name:
                where = os.path.normpath(os.path.join(os.path.dirname(path), name))
            line = line_of(prose, match.start())
            if where not in paths and where != ".":
                yield path, line, "link", f"{target}: no such file"
            elif anchor and where.endswith(".md") and anchor not in anchors_of(tree[where]):
                yield path, line, "link", f"{target}: no such heading"


def names_in(path, tree, sources):
    """What a file defines: functions, and macros."""
    if path in sources:
        code = sources[path].code
        return {match[1] for match in DEFINITION.finditer(code)} | set(
            re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", code, re.M))
    return set(re.findall(r"^[ \t]*def (\w+)\(", tree[path], re.M))


def unresolved(reference, tree, sources):
    """What of `path: name, name`, `mutant: NAME` or `test: name` isn't there; empty if all is."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        return ["it isn't of the form `file: name`, `mutant: NAME` or `test: name`"]
    where, names = match[1], match[2].split(", ")
    if where == "mutant":
        return [f"no mutant {name}" for name in names
                if not any(re.search(rf"\bHF_MUTANT(?:_{name}\b|\({name}\))", source.text)
                           for source in sources.values())]
    if where == "test":
        return [f"no test {name} in any meson.build" for name in names
                if not any(path.endswith("meson.build") and f"test('{name}'" in text
                           for path, text in tree.items())]
    paths = [path for path in tree if path == where or path.endswith("/" + where)]
    if len(paths) != 1:
        return [f"{len(paths)} files are named {where}"]
    defined = names_in(paths[0], tree, sources)
    return [f"{paths[0]} has no {name}" for name in names if name not in defined]


def check_rules_document(tree, sources):
    """Its tables have a rule, who keeps it, and what would notice if it were broken: all by name."""
    document = tree.get(rules.RULES_DOCUMENT, "")
    for number, line in enumerate(document.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or cells[0] == "rule" or set(cells[0]) <= set("-:"):
            continue
        if len(cells) != 3:
            yield rules.RULES_DOCUMENT, number, "rules-document", "a row has three cells"
            continue
        for cell in cells[1:]:
            references = re.findall(r"`([^`]*)`", cell)
            if not references:
                yield rules.RULES_DOCUMENT, number, "rules-document", "a cell that names nothing"
            for reference in references:
                for fault in unresolved(reference, tree, sources):
                    yield rules.RULES_DOCUMENT, number, "rules-document", f"`{reference}`: {fault}"


CHECKS = [check_rooms, check_libraries, check_pure, check_bans, check_allocation, check_exceptions,
          check_length, check_headers, check_words, check_links, check_rules_document]


def findings(tree):
    sources = {path: Source(path, text) for path, text in tree.items()
               if path.endswith((".c", ".h")) and path.split("/")[0] in rules.SOURCE_FOLDERS}
    return sorted(finding for check in CHECKS for finding in check(tree, sources))


def main():
    tree = read_tree(sys.argv[1])
    found = findings(tree)
    for path, line, rule, message in found:
        print(f"{path}:{line}: {rule}: {message}")
    print(f"{len(tree)} files, {len(found)} findings")
    return 1 if found or not tree else 0


if __name__ == "__main__":
    sys.exit(main())
