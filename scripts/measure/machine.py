"""The machine: how busy it is, what it allows, and the processes that a measurement starts."""

import atexit
import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import time

EX_USAGE, EX_UNAVAILABLE, EX_SOFTWARE = 64, 69, 70
BUSY_SHARE = 0.10
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """What ends a program of ours, in words, with an exit code of sysexits.h."""

    def __init__(self, text, code=EX_SOFTWARE):
        super().__init__(text)
        self.code = code


# ---- processes


class Processes:
    """
    All processes that were started here, so that none is left behind: by stop_all (atexit, and on
    SIGTERM and SIGHUP), and by the kernel should this one be killed.
    """

    def __init__(self):
        self._alive = {}
        self._owner = os.getpid()
        atexit.register(self.stop_all)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        # A shell starts what it puts into the background with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @staticmethod
    def _on_signal(number, _):
        raise SystemExit(128 + number)

    def start(self, command, cpus=None, below=False, **options):
        """
        subprocess.Popen, in a session of its own (a Ctrl-C of the terminal is for us), on the CPUs
        that are named. `below`: runs only while nothing else wants its CPU.
        """
        parent = os.getpid()

        def prepare():
            os.setsid()
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            if cpus is not None:
                os.sched_setaffinity(0, cpus)
            if below:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

        process = subprocess.Popen(command, preexec_fn=prepare, **options)
        self._alive[process.pid] = process
        return process

    def kill(self, process, number=signal.SIGKILL, wait_s=30):
        """Sends the signal, waits for the end (SIGKILL after wait_s), returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                process.send_signal(number)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._alive.pop(process.pid, None)
        return process.returncode

    def stop_all(self):
        if os.getpid() != self._owner:
            return
        for process in list(self._alive.values()):
            self.kill(process)


# ---- scheduling

AUTOGROUP = "/proc/sys/kernel/sched_autogroup_enabled"


@contextlib.contextmanager
def one_scheduling_group(say):
    """
    Where the kernel shares CPUs out by session first, priorities hold within a session alone, and
    a process `below` gets as much as all others. The sysctl that turns this off counts for
    processes started meanwhile; it is set back.
    """
    before = "0"
    with contextlib.suppress(FileNotFoundError), open(AUTOGROUP, encoding="ascii") as file:
        before = file.read().strip()
    if before == "0":
        yield
        return
    try:
        _write_text(AUTOGROUP, "0")
    except PermissionError:
        say("WARNING: kernel.sched_autogroup_enabled is 1 and can't be set: what should run below "
            "the others doesn't")
        yield
        return
    say("kernel.sched_autogroup_enabled = 0 for this measurement")
    try:
        yield
    finally:
        _write_text(AUTOGROUP, before)


def _write_text(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


# ---- limits


def raise_open_files():
    """The soft limit on open files goes up to the hard one. Returns (before, now)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def memory_available():
    return meminfo()["MemAvailable"]


def meminfo():
    """/proc/meminfo in bytes."""
    values = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            key, _, rest = line.partition(":")
            values[key] = int(rest.split()[0]) * 1024
    return values


def disk_available(path):
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def cpus_allowed():
    return sorted(os.sched_getaffinity(0))


# ---- alone


@contextlib.contextmanager
def alone(say):
    """
    Held by one measurement of the machine at a time; another waits. The lock is a socket without a
    file, which goes with its process. Where BENCH_LOCK names a file, that is locked too.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    waiting = False
    while True:
        try:
            lock.bind("\0holdfast-bench")
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        if not waiting:
            say("waiting for another measurement to end")
            waiting = True
        time.sleep(1)
    path = os.environ.get("BENCH_LOCK")
    with contextlib.ExitStack() as stack:
        stack.callback(lock.close)
        if path:
            file = stack.enter_context(open(path, "a", encoding="ascii"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cpu_times(text):
    """(busy, idle, stolen) ticks of the line "cpu ..." of /proc/stat."""
    fields = [int(word) for word in text.split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]
    stolen = fields[7] if len(fields) > 7 else 0
    return sum(fields[:8]) - idle - stolen, idle, stolen


def read_cpu_times():
    with open("/proc/stat", encoding="ascii") as file:
        return cpu_times(file.read())


def busy_share(before, after):
    """Of all CPU time between two cpu_times, what was used or stolen."""
    busy, idle, stolen = (b - a for a, b in zip(before, after))
    total = busy + idle + stolen
    return (busy + stolen) / total if total else 0.0


def wait_until_quiet(say, seconds=60):
    """Returns whether the machine is quiet; waits a while for it."""
    end = time.monotonic() + seconds
    said = False
    while True:
        before = read_cpu_times()
        time.sleep(1)
        share = busy_share(before, read_cpu_times())
        if share < BUSY_SHARE:
            return True
        if time.monotonic() >= end:
            say(f"WARNING: the machine is busy ({share:.0%} of its CPU time): figures will be low")
            return False
        if not said:
            say(f"the machine is busy ({share:.0%}); waiting up to {seconds} s for it")
            said = True


def describe():
    """One line: cores, memory, kernel, processor."""
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    gib = meminfo()["MemTotal"] / 2**30
    return f"{os.cpu_count()} cores, {gib:.1f} GiB, kernel {os.uname().release}, {model}"


def run_main(main):
    """Runs main(arguments) and ends the process with its exit code; a Failure is one line."""
    name = os.path.basename(sys.argv[0]).removesuffix(".py")
    try:
        code = main(sys.argv[1:])
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        code = failure.code
    except PermissionError as error:
        print(f"{name}: {error.filename}: only root may do that", file=sys.stderr)
        code = EX_UNAVAILABLE
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
