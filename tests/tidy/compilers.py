#!/usr/bin/env python3
"""Checks the tree with tools that understand C and shell.

    compilers.py headers ROOT BUILD_DIR     every header compiles alone
    compilers.py format ROOT BUILD_DIR      clang-format would change nothing
    compilers.py lint ROOT BUILD_DIR        clang-tidy finds nothing, nor do clang's own warnings
    compilers.py shell ROOT BUILD_DIR       shellcheck finds nothing

BUILD_DIR gives compile_commands.json. Exits with 1 on a finding, with 77 (skipped) where the tool
is missing or of another version than the configuration in the root is written for.

lint is slow (a second or two a file), so a clean result is remembered in BUILD_DIR/../tidy-cache
under a hash of all that it depends on: the file, the headers of ours that it includes, the command,
the configuration, the tool.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time

import tidy

CLANG_VERSION = "14"  # of Debian 12, and of .clang-format and .clang-tidy
CACHE_DAYS = 30
SKIPPED = 77


class Skip(Exception):
    """The tool isn't there."""


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)


def in_parallel(function, items):
    """[function(item)], as many at a time as there are processors."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(function, items))


def clang_tool(name):
    """The command and its version line; the versioned name first."""
    for command in (f"{name}-{CLANG_VERSION}", name):
        try:
            version = run([command, "--version"])
        except FileNotFoundError:
            continue
        if f"version {CLANG_VERSION}." in version.stdout:
            return command, version.stdout
    raise Skip(f"{name} {CLANG_VERSION} isn't installed")


def c_files(root, endings=(".c", ".h")):
    return [path for path in tidy.read_tree(root) if path.endswith(endings)
            and path.split("/")[0] in tidy.rules.SOURCE_FOLDERS]


def commands(root, build_dir):
    """
    {path from the root: (build directory, compile command)} of the C files of the tree, the first
    of each. The fuzz targets are in the build beside it alone.
    """
    entries = []
    for folder in (build_dir, os.path.join(os.path.dirname(build_dir), "fuzz")):
        path = os.path.join(folder, "compile_commands.json")
        if folder == build_dir or os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                entries += [{**entry, "build": folder} for entry in json.load(file)]
    result = {}
    for entry in entries:
        path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
        if path.endswith(".c") and not path.startswith(".."):
            result.setdefault(path, (entry["build"], entry["command"]))
    return result


def include_flags(root, build_dir):
    """
    The folders of libraries' headers that any file is compiled with, as absolute paths. Not the
    rooms' own, which meson adds: there proto/limits.h would stand before the system's.
    """
    flags = []
    for folder, command in commands(root, build_dir).values():
        for word in shlex.split(command):
            match = re.match(r"(-I|-isystem)(.+)", word)
            if not match:
                continue
            path = os.path.abspath(os.path.join(folder, match[2]))
            ours = (path + os.sep).startswith(root + os.sep) and os.sep + ".deps" not in path
            if not ours and match[1] + path not in flags:
                flags.append(match[1] + path)
    return flags


def headers(root, build_dir):
    flags = ["-I" + root] + include_flags(root, build_dir)

    def compile_alone(path):
        return run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
                    "-fsyntax-only", *flags, "-include", path, "-x", "c", os.devnull], cwd=root)

    paths = c_files(root, (".h",))
    results = in_parallel(compile_alone, paths)
    failures = [f"{path} doesn't compile alone:\n{result.stdout}"
                for path, result in zip(paths, results) if result.returncode]
    return len(paths), failures


def check_format(root, _):
    command, _ = clang_tool("clang-format")
    paths = c_files(root)
    result = run([command, "--dry-run", "-Werror", *paths], cwd=root)
    return len(paths), [result.stdout + "scripts/format puts it right"] if result.returncode else []


def included(path, root, seen):
    """The headers of ours that a file includes in the end, with itself, as paths from the root."""
    seen.add(path)
    with open(os.path.join(root, path), encoding="utf-8") as file:
        for _, name, is_system in tidy.Source(path, file.read()).includes:
            if not is_system and name not in seen and os.path.exists(os.path.join(root, name)):
                included(name, root, seen)
    return seen


def digest_of(path, root, context):
    digest = hashlib.sha256(context.encode())
    for name in sorted(included(path, root, set())):
        with open(os.path.join(root, name), "rb") as file:
            digest.update(name.encode() + b"\0" + file.read() + b"\0")
    return digest.hexdigest()


def forget_old(cache):
    now = time.time()
    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        if now - os.path.getmtime(path) > CACHE_DAYS * 86400:
            os.unlink(path)


def lint(root, build_dir):
    command, version = clang_tool("clang-tidy")
    cache = os.path.join(os.path.dirname(os.path.abspath(build_dir)), "tidy-cache")
    os.makedirs(cache, exist_ok=True)
    forget_old(cache)
    with open(os.path.join(root, ".clang-tidy"), encoding="utf-8") as file:
        context = version + file.read()
    stamp = os.path.join(root, ".deps", "stamp")
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            context += file.read()

    def lint_one(item):
        path, (folder, compile_command) = item
        known = os.path.join(cache, digest_of(path, root, context + compile_command))
        if os.path.exists(known):
            os.utime(known)
            return None
        # The commands are gcc's, whose warnings aren't all clang's (see the root's meson.build).
        result = run([command, "-p", folder, "--quiet",
                      "--extra-arg=-Wno-unknown-warning-option",
                      "--extra-arg=-Wno-string-conversion", os.path.join(root, path)],
                     cwd=root)
        if result.returncode:
            return f"{path}:\n{result.stdout}"
        with open(known, "w", encoding="utf-8") as file:
            file.write(path + "\n")
        return None

    items = sorted(commands(root, build_dir).items())
    return len(items), [failure for failure in in_parallel(lint_one, items) if failure]


def shell(root, _):
    paths = [path for path, text in tidy.read_tree(root).items()
             if path.endswith(".sh") or re.match(r"#!.*\b(ba|da)?sh\b", text)]
    try:
        result = run(["shellcheck", *paths], cwd=root)
    except FileNotFoundError as error:
        raise Skip("shellcheck isn't installed") from error
    return len(paths), [result.stdout] if result.returncode else []


CHECKS = {"headers": headers, "format": check_format, "lint": lint, "shell": shell}


def main():
    name, root, build_dir = sys.argv[1:]
    try:
        count, failures = CHECKS[name](os.path.abspath(root), os.path.abspath(build_dir))
    except Skip as reason:
        print(f"skipped: {reason}")
        return SKIPPED
    for failure in failures:
        print(failure)
    print(f"{name}: {count} files, {len(failures)} with findings")
    return 1 if failures or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
