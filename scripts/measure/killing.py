"""kill -9 at moments of our choice: under load, in a flush, while it trims, at start, in recovery."""

import os
import time

from machine import Failure

READY_S = 60
TRAFFIC_S = 60
# So small a journal that flush, trim and recovery go on most of the time.
SMALL_JOURNAL = {"journal_bytes": 4 << 20, "journal_segment_bytes": 256 << 10, "flush_percent": 10,
                 "flush_interval_s": 1}
STEPS = "connect,window:4:0:keep,hold,settle,verify,leave"
# Where a thread waits for work: poll, ppoll, futex. In any other system call, or in none, it works.
WAITING = ("7", "271", "202")
KINDS = ("load", "flush", "trim", "start", "recovery")


def threads_named(pid, name):
    """The ids of a process's threads of that name."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as file:
                if file.read().strip() == name:
                    found.append(thread)
        except OSError:
            continue  # it ended
    return found


def is_working(pid, threads):
    """Whether one of the threads isn't waiting for work."""
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/syscall", encoding="ascii") as file:
                if file.read().split()[0] not in WAITING:
                    return True
        except OSError:
            continue
    return False


class Killer:
    """
    Kills one server again and again, and counts what each kill interrupted. It comes back with
    another number of cores now and then, from 1 to cores_max.
    """

    def __init__(self, server, random, cores_max):
        self._server = server
        self._random = random
        self._cores_max = cores_max
        self._start_s = 0.5
        self.counts = dict.fromkeys(KINDS, 0)
        self.starts_s = []

    @property
    def kills(self):
        return sum(self.counts.values())

    def start(self):
        self._server.settings["cores"] = self._random.randint(1, self._cores_max)
        self._start_s = self._server.start()
        self.starts_s.append(self._start_s)

    def kill(self, kind):
        """The server runs, has been killed once and runs again afterwards."""
        getattr(self, f"_kill_{kind}")()
        self.start()

    def _kill_load(self):
        time.sleep(self._random.uniform(0.2, 2.0))
        self._note("flush" if self._flushes() else "load")

    def _flushes(self):
        pid = self._server.pid
        return is_working(pid, threads_named(pid, "hf-flusher"))

    def _await_flush(self, working, seconds):
        """Until the flusher works, or doesn't any more. False: it didn't come."""
        pid = self._server.pid
        flushers = threads_named(pid, "hf-flusher")
        end = time.monotonic() + seconds
        while is_working(pid, flushers) != working:
            if time.monotonic() > end:
                return False
            time.sleep(0.0005)
        return True

    def _kill_flush(self):
        time.sleep(self._random.uniform(0.1, 0.5))
        seen = self._await_flush(True, 10)
        time.sleep(self._random.choice((0, 0.001, 0.005, 0.02)))
        self._note("flush" if seen and self._flushes() else "load")

    def _kill_trim(self):
        """A flush has just ended: the reactor takes its segments back."""
        time.sleep(self._random.uniform(0.1, 0.5))
        seen = self._await_flush(True, 10) and self._await_flush(False, 10)
        self._note("trim" if seen else "load")

    def _kill_start(self):
        self._note("load")
        self._kill_starting(self._random.uniform(0.0, self._start_s), "start")

    def _kill_recovery(self):
        """The admin port answers from before recovery on, and says that it isn't ready."""
        self._note("load")
        began = time.monotonic()
        size = self._log_bytes()
        self._server.launch()
        while b"event=admin_listening" not in self._log_from(size):
            if time.monotonic() - began > READY_S:
                break
            time.sleep(0.0005)
        time.sleep(self._random.choice((0, 0.001, 0.003, 0.01)))
        self._server.kill()
        said = self._log_from(size)
        in_recovery = b"event=admin_listening" in said and b"event=recovered" not in said
        self.counts["recovery" if in_recovery else "start"] += 1

    def _kill_starting(self, after_s, kind):
        self._server.launch()
        time.sleep(after_s)
        self._server.kill()
        self.counts[kind] += 1

    def _note(self, kind):
        self._server.kill()
        self.counts[kind] += 1

    def _log_bytes(self):
        return os.path.getsize(self._server.log)

    def _log_from(self, offset):
        with open(self._server.log, "rb") as file:
            file.seek(offset)
            return file.read()


def plan(count, random):
    """`count` kinds: each once, in a random order, then each again."""
    kinds = []
    while len(kinds) < count:
        kinds += random.sample(KINDS, len(KINDS))
    return kinds[:count]


def await_traffic(server, load):
    """Until the server has accepted messages since its start: the kill is to come under load."""
    end = time.monotonic() + TRAFFIC_S
    while server.metrics().get("holdfast_messages_accepted_total", 0) == 0:
        load.drain()
        if load.process.poll() is not None:
            raise Failure(f"the load generator ended early: {load.last_words()}")
        if time.monotonic() > end:
            raise Failure(f"no message was accepted for {TRAFFIC_S} s after a restart")
        time.sleep(0.02)


def kill_under_load(server, load, kills, random, cores_max, say):
    """Kills the server at least so many times while `load` sends. Returns the Killer."""
    killer = Killer(server, random, cores_max)
    said = 0
    for kind in plan(kills, random):
        if killer.kills >= kills:
            break
        await_traffic(server, load)
        killer.kill(kind)
        load.drain()
        if killer.kills >= said + 10:
            said = killer.kills
            say(f"{killer.kills} kills")
    await_traffic(server, load)
    return killer
