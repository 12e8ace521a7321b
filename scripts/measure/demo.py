"""The program behind scripts/demo: what it does, in order, and the screen at its end."""

import argparse
import os
import random
import re
import shutil
import sys
import time

import machine
import proc
from load import Load
from machine import EX_UNAVAILABLE, EX_USAGE, Failure
from server import Identity, Programs, Server

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
DEMO = os.path.join(ROOT, ".demo")
CLIENTS, RATE, SECONDS = 50000, 5000, 10
# Of memory, for both ends of a connection on this machine, and beside them.
BYTES_EACH, BYTES_BESIDE = 12 << 10, 700 << 20
JOURNAL_BYTES = 256 << 20
DISK_BYTES = 1500 << 20
RINGS_MAX = 128  # of a thread, each with a file table of RLIMIT_NOFILE at most
RECOVERED = re.compile(r"event=recovered .*?records=(\d+) bytes=(\d+) torn_batches=(\d+) ms=(\d+)")

CHAT = """
Chat by hand: each block in a terminal of its own.

  build/release/core/holdfastd --config .demo/holdfastd.conf

  hf="build/release/client/holdfast --state .demo/user-1"
  $hf login localhost:7443 --user 1 --device 1 --ca .demo/ca.pem \\
      --token-file .demo/user-1.token
  $hf chat 2

  hf="build/release/client/holdfast --state .demo/user-2"
  $hf login localhost:7443 --user 2 --device 1 --ca .demo/ca.pem \\
      --token-file .demo/user-2.token
  $hf chat 1"""


def say(text=""):
    print(text, flush=True)


class Bar:
    """A progress line, where somebody looks."""

    def __init__(self, what, whole):
        self._what = what
        self._whole = whole
        self._drawn = False
        self._seen = sys.stdout.isatty()

    def draw(self, done):
        if not self._seen:
            return
        share = min(done / self._whole, 1)
        filled = round(share * 30)
        sys.stdout.write(f"\r\033[K  [{'#' * filled}{'.' * (30 - filled)}] {done:,.0f} of "
                         f"{self._whole:,} {self._what}")
        sys.stdout.flush()
        self._drawn = True

    def wipe(self):
        if self._drawn:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()


# ---- how many


def clients_allowed(wanted, facts):
    """
    (clients, why fewer than wanted or None), of what the machine has: memory and free files of the
    system in all, open files a process, CPUs.
    """
    bounds = [
        (wanted, None),
        ((facts["memory"] - BYTES_BESIDE) // BYTES_EACH,
         f"{facts['memory'] / 2**20:,.0f} MB of memory are free"),
        ((facts["files"] - 2000) // 2, f"the system may have {facts['files']:,} more open files"),
        (facts["open_files"] * RINGS_MAX // 4, f"a process may open {facts['open_files']:,} files"),
        (CLIENTS // 2 if facts["cpus"] == 1 else wanted,
         "one CPU can't shake so many hands in four minutes"),
    ]
    clients, why = min(bounds, key=lambda bound: bound[0])
    clients = clients // 1000 * 1000 if why else clients
    if clients < 2:
        raise Failure(f"there is no room for a demonstration: {why}", EX_UNAVAILABLE)
    return clients, why


def look_at_machine(open_files):
    with open("/proc/sys/fs/file-nr", encoding="ascii") as file:
        used, _, most = map(int, file.read().split())
    return {"memory": machine.memory_available(), "files": most - used, "open_files": open_files,
            "cpus": len(machine.cpus_allowed())}


def slabs():
    """The kernel's memory; nothing where only root may see it."""
    try:
        return proc.read_slabinfo()
    except OSError:
        return {}


def words_of(kernel):
    return "(root alone can see what)" if kernel is None else f"{kernel:,.0f} B"


# ---- the acts


class Demo:
    """One demonstration: a server, a crowd, and what became known of them."""

    def __init__(self, clients, processes, programs):
        self.clients = clients
        self.rate = min(RATE, max(clients // 10, 1))
        self.began = time.monotonic()
        self.facts = {}
        self._processes = processes
        self._programs = programs
        self.folder = os.path.join(DEMO, "run")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.identity = Identity(programs, DEMO)
        self.server = Server(processes, programs, self.folder, identity=self.identity,
                             max_connections=clients + 500, journal_bytes=JOURNAL_BYTES)
        self.load = None

    def step(self, text):
        say(f"[{time.monotonic() - self.began:3.0f} s] {text}")

    def watch(self, event, what, seconds, step=None):
        """Until the crowd says that event; draws how many connections the server has meanwhile."""
        bar = Bar(what, self.clients)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                got = self.load.look(0.3)
                if got is None:
                    bar.draw(self.connections())
                elif got["event"] == event and (step is None or got.get("step") == step):
                    return got
        finally:
            bar.wipe()
        raise Failure(f"no \"{event}\" within {seconds} s")

    def connections(self):
        try:
            return self.server.metrics().get("holdfast_connections", 0)
        except OSError:
            return 0  # it has just been killed, or starts

    def start_server(self):
        seconds = self.server.start()
        self.step(f"server up in {seconds:.1f} s, pid {self.server.pid}: an empty store, its journals "
                  f"of {JOURNAL_BYTES >> 20} MB written with zeros")

    def connect(self):
        self.facts["slab"] = slabs()
        self.facts["anonymous"] = proc.anonymous_bytes(self.server.pid)
        threads = min(2, len(machine.cpus_allowed()))
        steps = (f"connect,idle:2,pace:{self.rate}:{SECONDS}:keep,await-restart:400,settle,verify,"
                 "leave")
        self.load = Load(self._processes, self._programs, self.server, steps=steps,
                         clients=self.clients, threads=threads, full=min(3000, self.clients),
                         back_off_max=5, settle_timeout=90)
        connected = self.watch("connected", "clients connected", 600)
        self.step(f"{self.clients:,} TLS 1.3 clients connected in {connected['seconds']:.0f} s: "
                  f"{connected['full']:,} full handshakes, then {connected['resumed']:,} resumed")

    def idle(self):
        self.watch("memory", "clients idle", 60)
        after = slabs()
        before = self.facts["slab"]
        kernel = None
        if after:
            # A connection has at least one object of each cache that it uses.
            kernel = proc.kernel_growth(before, after, self.clients // 2) / self.clients
            kernel -= proc.client_end(before, after, self.clients)
        user = proc.anonymous_bytes(self.server.pid)
        grown = (user - self.facts["anonymous"]) / self.clients
        self.facts.update(kernel=kernel, user=user)
        self.step(f"idle, a connection: {words_of(kernel)} of kernel memory at the server's end; "
                  f"the server has {user / 1e6:.0f} MB in all, {grown:,.0f} B each since they came")

    def talk(self):
        measured = self.watch("measured", "clients, sending", 90)
        self.facts["measured"] = measured
        accepted, delivered = measured["accepted_us"], measured["delivered_us"]
        self.step(f"{SECONDS} s of {measured['messages_per_s']:,.0f} durable messages a second: "
                  f"accepted p50 {accepted['p50'] / 1000:.1f} ms, p99 {accepted['p99'] / 1000:.1f} ms; "
                  f"delivered p50 {delivered['p50'] / 1000:.1f} ms, p99 {delivered['p99'] / 1000:.1f} ms")

    def kill(self):
        time.sleep(random.uniform(0.2, 1.5))  # traffic goes on: the blow comes at any moment
        self.server.kill()
        self.step("kill -9, with messages in flight; and the same server again, on what it left")
        seconds = self.server.start()
        records, size, torn, _ = self.recovered()
        self.facts["recovered"] = seconds
        self.step(f"up again in {seconds * 1000:.0f} ms: {records:,} records ({size / 2**20:.0f} MB) "
                  f"of its journals were applied first" + (", a torn last batch left out" if torn else ""))

    def recovered(self):
        with open(self.server.log, encoding="utf-8", errors="replace") as file:
            return [int(number) for number in RECOVERED.findall(file.read())[-1]]

    def come_back(self):
        back = self.watch("all_back", "clients are back", 400)
        self.facts["back"] = back
        self.step(f"all {self.clients:,} are back after {back['seconds']:.0f} s "
                  f"({back['resumed']:,} resumed, {back['full']:,} full), and have sent again what "
                  f"was unanswered")

    def prove(self):
        settled = self.watch("settled", "clients, settling", 300)
        self.step(f"each client has opened every entry of its log: {settled['created']:,} messages "
                  f"were created")
        verified = self.watch("verified", "clients read their logs again", 500)
        self.facts["verified"] = verified
        self.step(f"all logs read again from the start: {verified['own_entries']:,} entries in "
                  f"senders' logs, {verified['peer_entries']:,} in receivers'; lost "
                  f"{verified['lost']}, doubled {verified['doubled']}, out of order "
                  f"{verified['reordered']}")
        code = self.load.finish(60)
        if code or not verified["complete"]:
            raise Failure(f"the load generator ended with {code}: {self.load.last_words()}", 1)

    def end(self):
        code = self.server.stop()
        if code:
            raise Failure(f"the server ended with {code}: {self.server.last_words()}", 1)

    def run(self):
        for act in (self.start_server, self.connect, self.idle, self.talk, self.kill,
                    self.come_back, self.prove, self.end):
            act()


# ---- what to do next


def prepare_chat(demo, programs):
    """A configuration and two tokens, so that a chat by hand is four commands."""
    lines = [f"{key} = {value}" for key, value in (
        ("listen", "127.0.0.1:7443,[::1]:7443"), ("admin_listen", "127.0.0.1:7480"),
        ("data_dir", os.path.join(DEMO, "chat")), ("tls_cert", demo.identity.cert),
        ("tls_key", demo.identity.cert_key), ("login_keys", demo.identity.keys),
        ("max_connections", "1000"), ("journal_bytes", "64M"))]
    with open(os.path.join(DEMO, "holdfastd.conf"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    for user in (1, 2):
        path = os.path.join(DEMO, f"user-{user}.token")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(demo.identity.token(user, 1, "7d") + "\n")
    return not programs.missing("client")


def summary(demo, can_chat):
    facts = demo.facts
    measured, verified, back = facts["measured"], facts["verified"], facts["back"]
    accepted = measured["accepted_us"]
    user = max(facts["user"] - facts["anonymous"], 0) / demo.clients
    each = user + (facts["kernel"] or 0)
    cores = measured.get("server_cpu_s", 0) / measured["seconds"]
    rows = [
        ("machine", machine.describe()),
        ("connections", f"{demo.clients:,} over TLS 1.3, each with {words_of(facts['kernel'])} of the "
                        f"kernel's"),
        ("", f"memory at the server's end and {user:,.0f} B of the server's own, beside "
             f"{facts['anonymous'] / 1e6:,.0f} MB for all"),
        ("messages", f"{measured['messages_per_s']:,.0f} a second, on disk before they are accepted:"),
        ("", f"p50 {accepted['p50'] / 1000:.1f} ms, p99 {accepted['p99'] / 1000:.1f} ms"),
        ("kill -9", f"up again in {facts['recovered']:.1f} s, all clients back after "
                    f"{back['seconds']:.0f} s"),
        ("", f"{verified['created']:,} messages created: {verified['lost']} lost, "
             f"{verified['doubled']} doubled, {verified['reordered']} out of order"),
        ("sizing", "500 M users are 10,000 servers of 50,000 connections, each with"),
        ("", f"23 messages a second; here {measured['messages_per_s']:,.0f} a second took {cores:.2f} of "
             f"a core,"),
        ("", f"and a gigabyte holds {1e9 / each:,.0f} connections"),
        ("took", f"{time.monotonic() - demo.began:.0f} s"),
    ]
    say("\n" + "=" * 78)
    for name, text in rows:
        say(f"  {name:<12} {text}")
    say("=" * 78)
    if can_chat:
        say(CHAT)


def parse(arguments):
    def usage_error(text):
        raise Failure(text, EX_USAGE)

    parser = argparse.ArgumentParser(prog="scripts/demo", add_help=False, allow_abbrev=False)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "release"))
    parser.error = usage_error
    options = parser.parse_args(arguments)
    if not 2 <= options.clients <= 1000000:
        usage_error("--clients is from 2 to 1,000,000")
    options.clients -= options.clients % 2
    return options


def main(arguments):
    options = parse(arguments)
    programs = Programs(options.build)
    missing = programs.missing("server", "token", "loadgen")
    if missing:
        raise Failure(f"this tree doesn't build {', '.join(missing)} yet", EX_UNAVAILABLE)
    processes = machine.Processes()
    soft, hard = machine.raise_open_files()
    if soft != hard:
        say(f"the limit on open files goes from {soft:,} to {hard:,}, the most allowed here")
    clients, why = clients_allowed(options.clients, look_at_machine(hard))
    if why:
        say(f"{clients:,} clients instead of {options.clients:,}: {why}")
    if machine.disk_available(ROOT) < DISK_BYTES:
        raise Failure(f"less than {DISK_BYTES >> 20} MB of disk are free here", EX_UNAVAILABLE)
    with machine.alone(say):
        demo = Demo(clients, processes, programs)
        try:
            demo.run()
            summary(demo, prepare_chat(demo, programs))
        except Failure as failure:
            raise Failure(f"{failure} (the logs are in .demo/)", failure.code) from failure
        finally:
            processes.stop_all()
            keep_logs(demo)
    return 0


def keep_logs(demo):
    """What the programs said stays, for whoever wants to know; data doesn't."""
    for name in ("holdfastd.log", "loadgen.log"):
        path = os.path.join(demo.folder, name)
        if os.path.exists(path):
            os.replace(path, os.path.join(DEMO, name))
    shutil.rmtree(demo.folder, ignore_errors=True)


if __name__ == "__main__":
    machine.run_main(main)
