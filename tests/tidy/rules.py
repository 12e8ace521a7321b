"""The tables that tidy.py enforces: rooms and floors, headers, banned calls, words, exceptions.

An exception always carries its reason, and tidy.py complains about one that is no longer needed.
"""

import re

# Floors of docs/architecture.md. A room includes its own files, those of floor 0, and what it lists.
# Tests may include anything.
ROOMS = {
    # room: (floor, rooms that it uses)
    "core/main.c": (4, ["core/server"]),
    "core/token_main.c": (4, ["core/token", "core/tls"]),
    "core/server": (3, ["core/engine", "core/link", "core/io", "core/tls", "core/token", "store", "proto"]),
    "loadgen": (3, ["client", "core/link", "core/io", "core/tls", "core/token", "proto"]),
    "core/engine": (2, ["proto"]),
    "client": (2, ["proto", "core/tls"]),
    "store": (1, []),
    "core/link": (2, ["core/io", "core/tls", "proto"]),
    "core/io": (1, []),
    "core/token": (1, []),
    "core/tls": (1, []),
    "proto": (1, []),
    "core/base": (0, []),
}
TESTS = "tests"
SOURCE_FOLDERS = ["core", "proto", "store", "client", "loadgen", TESTS]

# Single headers of another room that a room may include besides, and why.
HEADERS_USED = {
    "core/engine": {
        "store/record.h": "the redo records are what the engine appends; types and pure functions",
    },
}

# Headers of libraries, as a pattern of the included name: who may include them. Tests may.
LIBRARIES = [
    (r"liburing(\.h|/)|linux/io_uring", ["core/io", "core/server", "loadgen"],
     "rings are core/io's: use core/io/ring.h"),
    (r"(mbedtls|psa)/", ["core/tls", "core/token"],
     "mbedTLS stands behind core/tls and core/token"),
    (r"lmdb\.h", ["store"], "LMDB stands behind store/volume.h"),
    (r"openssl/(crypto|evp)\.h", ["core/tls"], "libcrypto stands behind core/tls/aead.h"),
    (r"(openssl/(?!(crypto|evp)\.h)|gnutls/)", [], "a peer in tests only: core/tls is our TLS"),
    (r"cmocka", [], "tests only"),
    (r"assert\.h", [], "use core/base/check.h: HF_ASSERT"),
]

# Files that must stay pure: they and all that they include may use these system headers only.
PURE_HEADERS = ["inttypes.h", "limits.h", "stdalign.h", "stdbool.h", "stddef.h", "stdint.h",
                "string.h"]
PURE = [
    # pattern of the path, system headers besides PURE_HEADERS, why
    (r"core/engine/", ["stdlib.h"],
     "the engine is a state machine: time, bytes and loads come in as events, and what it wants"
     " goes out as effects"),
    (r"proto/", [], "proto knows bytes and limits; it neither allocates nor does I/O"),
    (r"store/(record|journal|mark|index|schema|flush|expire|recover)[a-z_]*\.[ch]",
     ["errno.h", "stdlib.h", "sys/mman.h", "sysexits.h"],  # memory, taken when it is opened
     "the simulator runs it over a disk of its own: say what to write where, and let the caller"
     " write it"),
]

# System headers that a room may not include, as patterns.
HEADERS_BANNED = [
    ("core/tls", r"sys/socket\.h|netinet/|netdb\.h|poll\.h|sys/epoll\.h",
     "core/tls knows keys and records, not sockets"),
    ("core/token", r"sys/socket\.h|netinet/|arpa/|netdb\.h|poll\.h|pthread\.h",
     "core/token is pure but for key files"),
    ("store", r"sys/socket\.h|netinet/|arpa/|netdb\.h", "store knows disks, not clients"),
]


def call(*names):
    """A pattern for calls of these functions, not of others that end alike, nor of members."""
    return re.compile(r"(?<![\w.])(?<!->)(?:" + "|".join(names) + r")\s*\(")


EVERYWHERE = r""
NOT_TESTS = r"(?!tests/)"
DETERMINISTIC = r"core/engine/|proto/|store/(record|journal|mark|index|schema|flush|expire|recover)"

# (which files, what, use instead)
BANS = [
    (EVERYWHERE, call("strcpy", "stpcpy", "strncpy"), "memcpy with a checked length, or snprintf"),
    (EVERYWHERE, call("strcat", "strncat"), "snprintf into what is left"),
    (EVERYWHERE, call("sprintf", "vsprintf"), "snprintf"),
    (EVERYWHERE, call("gets"), "fgets or getline"),
    (EVERYWHERE, call("scanf", "fscanf"), "getline, and strtoull with a checked end"),
    (EVERYWHERE, call("strtok"), "strtok_r or strcspn"),
    (EVERYWHERE, call("atoi", "atol", "atoll", "atof"), "strtoull with a checked end"),
    (EVERYWHERE, call("rand", "srand", "random", "srandom", "rand_r", "drand48"),
     "getrandom for secrets; a seeded generator in tests"),
    (EVERYWHERE, call("alloca"), "a fixed array with a checked length"),
    (EVERYWHERE, call("localtime", "gmtime", "ctime", "asctime"), "localtime_r or gmtime_r"),
    (EVERYWHERE, call("strerror"), "hf_error_set, or strerror_r"),
    (EVERYWHERE, call("signal"), "sigaction"),
    (EVERYWHERE, call("system", "popen"), "posix_spawn"),
    (EVERYWHERE, call("tmpnam", "tempnam", "mktemp"), "mkstemp or mkdtemp"),
    (EVERYWHERE, call("inet_ntoa", "inet_addr", "inet_aton"), "inet_ntop and inet_pton"),
    (EVERYWHERE, call("gethostbyname", "gethostbyaddr"), "getaddrinfo"),
    (EVERYWHERE, call("select", "FD_SET"), "poll: descriptors go beyond 1,023 here"),
    (NOT_TESTS, call("assert"), "HF_ASSERT for errors of the programmer; an error for input"),
    (DETERMINISTIC, call("time", "clock", "clock_gettime", "gettimeofday", "getrandom", "getenv"),
     "the time (or seed, or setting) that the caller passes in"),
    (r"proto/", call("malloc", "calloc", "realloc", "strdup", "free"), "the caller's memory"),
    (r"tests/", call("sleep", "usleep", "nanosleep", "clock_nanosleep"),
     "virtual time, or waiting for the event itself (poll, a future's descriptor) with a deadline"),
]

# After start these allocate nothing: only functions named for making and ending things may.
NO_ALLOCATION = r"core/engine/|core/io/|core/server/(reactor|conn)|store/(journal|index)"
START_UP_FUNCTION = r"(\w+_)?(open|close|init|deinit|map|reserve)$"
ALLOCATION = call("malloc", "calloc", "realloc", "reallocarray", "aligned_alloc",
                  "posix_memalign", "strdup", "strndup", "free", "mmap", "munmap")

# .c and .h files over LINES_MAX, and why a wall would make them worse.
LINES_MAX = 700
LONG_FILES = {}

# What no file of the tree may say. Each pattern is written so that it doesn't match itself.
WORDS_BANNED = [
    (r"(?<![\w.:/-])/wor[k]/", "a path of the machine that it was written on"),
    (r"(?<!\w)\.librar[y]\b", "a path of the machine that it was written on"),
    (r"(?i)\bhelper[ ]sessions?\b", "how it was made"),
    (r"(?i)\bsession of our[s]\b", "how it was made"),
    (r"\b(TOD[O]|FIXM[E]|XX[X])\b", "finish it, or write down the limitation as it is"),
    (r"(?i)\b(?:[\w-]+\.)*(?:debia[n]|ubunt[u])\.(?:org|com|net)\b",
     "mirrors come from the machine's own apt sources"),
    (r"(?i)\b(?:files\.pythonhoste[d]\.org|pyp[i]\.org|registry\.npmj[s]\.org|proxy\.golan[g]\.org)\b",
     "no package registry is named"),
]

# The document of the rules that the server keeps. What its tables name must be there: see
# check_rules_document of tidy.py.
RULES_DOCUMENT = "docs/rules.md"

# What the opening comment of a public header must have a paragraph for, by what the header has in it.
# A struct of pure functions has no owner to name. Floor 0 is exempt from Owner and Errors.
PRIVATE_HEADER = r".*_(internal|private)\.h$"
LABELS_OF_FUNCTIONS = ["Thread", "Errors"]
LABELS_OF_STRUCTS = ["Owner"]
