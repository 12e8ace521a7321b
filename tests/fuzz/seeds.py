#!/usr/bin/env python3
"""Makes a folder of seeds, one file an input.

    seeds.py FOLDER DEPFILE SEEDS [VECTORS...]

SEEDS is a folder whose files are copied, if it is there; VECTORS are files of tests/vectors/proto,
of which the bytes of each vector are a seed. What all of it depends on is written to DEPFILE.
"""
import os
import re
import shutil
import sys


def copy(folder, source):
    """Returns what a new seed would change."""
    if not os.path.isdir(source):
        return [os.path.dirname(source)]
    paths = [os.path.join(source, name) for name in sorted(os.listdir(source))]
    for path in paths:
        shutil.copy(path, folder)
    return [source] + paths


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


def main(folder, depfile, source, *vector_files):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    depends = copy(folder, source)
    vectors(folder, vector_files)
    with open(depfile, "w", encoding="utf-8") as file:
        file.write(f"{folder}: " + " ".join(path.replace(" ", "\\ ") for path in depends) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
