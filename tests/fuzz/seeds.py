#!/usr/bin/env python3
"""Makes a folder of seeds, one file an input.

    seeds.py FOLDER vectors FILE...   the bytes of each vector of tests/vectors/proto
    seeds.py FOLDER copy FILE...      the files themselves
"""
import os
import re
import shutil
import sys


def vectors(folder, paths):
    for path in paths:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        name = None
        for match in re.finditer(r"^vector +(\S+)$|^bytes ((?:.*\n)(?: .*\n)*)", text, re.M):
            if match[1]:
                name = match[1]
            else:
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(bytes.fromhex(match[2]))


def copy(folder, paths):
    for path in paths:
        shutil.copy(path, folder)


if __name__ == "__main__":
    kinds = {"vectors": vectors, "copy": copy}
    if len(sys.argv) < 4 or sys.argv[2] not in kinds:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    os.makedirs(sys.argv[1])
    kinds[sys.argv[2]](sys.argv[1], sys.argv[3:])
