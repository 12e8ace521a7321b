"""One recorded history: a server that is started, loaded, killed and started again, with the log of
what it did to its directory and the ledger of what it told its clients."""
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../integration"))

import harness  # noqa: E402
import load  # noqa: E402

# (cores, messages, how it ends)
SHORT = ((2, 500, "kill"), (2, 400, "kill"), (1, 300, "stop"))
LONG = ((2, 1200, "kill"), (2, 800, "kill"), (1, 1200, "kill"), (1, 400, "stop"), (2, 800, "kill"),
        (2, 400, "kill"))

# Journals as small as they may be, so that flushes, trims and segments used again are many.
SERVER = {"journal_bytes": "4M", "journal_segment_bytes": "256k", "flush_interval_s": 1,
          "bytes_per_s_max": 1 << 30, "frames_per_s_max": 1000000, "admin_listen": ""}


class Failure(Exception):
    """What was found."""


class Session:
    """Files are in `folder`; `images` is the program power_images."""

    def __init__(self, keys, images, seed, folder, **options):
        self.images = images
        self.seed = seed
        self.folder = folder
        self.log = os.path.join(folder, "log")
        self.ledger = os.path.join(folder, "ledger")
        self.server = harness.Server(keys, **{**SERVER, **options})
        self.retention = int(options.get("retention_count", 100000))
        self.load = load.Load(seed)

    def close(self):
        self.server.close()

    def abandon(self):
        """Something failed: nothing is left running."""
        if self.server.process is not None:
            self.server.kill()

    def record(self, steps, say=lambda text: None):
        os.mkdir(self.server.data, 0o700)
        os.environ["HF_RECORD_LOG"] = self.log
        os.environ["HF_RECORD_DIR"] = self.server.data
        try:
            for number, (cores, messages, ends) in enumerate(steps):
                self.server.start(cores=cores)
                if number == 0:
                    self.load.make_users(self.server)
                self.load.run(self.server, messages)
                self.end(ends)
                self.run("settle", self.log, self.server.data)
                say(self.run("compare", self.log, self.server.data).strip())
        finally:
            del os.environ["HF_RECORD_LOG"], os.environ["HF_RECORD_DIR"]
        self.load.ledger.write(self.ledger)

    def end(self, ends):
        if ends == "kill":
            self.server.kill()
            self.load.stop()
        else:
            self.load.stop()
            self.server.stop()

    def run(self, *arguments, good=(0,)):
        """The output of power_images."""
        done = subprocess.run([self.images, *(str(one) for one in arguments)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        if done.returncode not in good:
            raise Failure(f"{' '.join(str(one) for one in arguments)}: exit code "
                          f"{done.returncode}:\n{done.stdout}")
        return done.stdout

    def check(self, images, jobs, *options, good=(0,)):
        return self.run("images", self.log, self.ledger, "--folder", self.scratch(), "--images",
                        images, "--seed", self.seed, "--jobs", jobs, "--retention", self.retention,
                        *options, good=good)

    def scratch(self):
        """Where images are made: in memory, where there is room, since they are many."""
        room = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
        if room and room.f_bavail * room.f_frsize > 1 << 30:
            return os.path.join("/dev/shm", f"holdfast-power-{os.getpid()}-{self.seed}")
        return os.path.join(self.folder, "images")

    def serve(self, keys, number, holdfastd):
        """
        The server itself starts on that image, and clients read all logs: everything accepted
        before the cut must be once in both.
        """
        scratch = os.path.join(self.folder, "served")
        written = self.run("images", self.log, self.ledger, "--folder", scratch, "--seed",
                           self.seed, "--image", number, "--write-only")
        upto_ns = int(written.strip().rpartition("cut_ns=")[2])
        harness.HOLDFASTD = holdfastd
        server = harness.Server(keys, **{**SERVER, "data_dir": os.path.join(scratch, "image-0"),
                                         "retention_count": self.retention})
        try:
            server.start()
            missing = load.wait_for_streams(server, self.load, upto_ns, self.retention)
            if missing:
                raise Failure(f"image {number}, served:\n" + "\n".join(missing[:10]))
        finally:
            server.close()


def make_folder(parent, name):
    os.makedirs(parent, exist_ok=True)
    return tempfile.mkdtemp(prefix=f"{name}-", dir=parent)
