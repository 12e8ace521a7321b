"""What /proc says: CPU time by thread, memory of a process, memory of the kernel."""

import os

PAGE = 4096


def thread_cpu_ns(pid, proc="/proc"):
    """
    {name of the thread: CPU ns}, those of one name summed. From schedstat, which counts in ns;
    stat's ticks of 10 ms are too coarse.
    """
    times = {}
    folder = f"{proc}/{pid}/task"
    for thread in os.listdir(folder):
        try:
            with open(f"{folder}/{thread}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            with open(f"{folder}/{thread}/schedstat", encoding="ascii") as file:
                ns = int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        times[name] = times.get(name, 0) + ns
    return times


def grown(before, after):
    """{name: growth} of two such dictionaries."""
    return {name: value - before.get(name, 0) for name, value in after.items()}


def smaps_field(text, name):
    """Bytes of a field of smaps_rollup."""
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0]) * 1024
    raise KeyError(name)


def anonymous_bytes(pid):
    """Anonymous PSS: memory that is the process's own, files and shared pages apart."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return smaps_field(file.read(), "Pss_Anon")


# ---- kernel memory, counted by the objects of each slab cache

# What one end of a plain TCP connection is made of: a socket, its inode and file, and labels.
CLIENT_END = ("TCP", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache")
# What goes with each inode that somebody's look at /proc/PID/fd has left behind: no cost of a
# connection.
PROC_INODE = ("proc_inode_cache", "dentry", "lsm_inode_cache")


def parse_slabinfo(text):
    """{cache: (objects in use, bytes of slab pages for each)}."""
    caches = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 6 or words[0].startswith("#") or words[0] == "slabinfo":
            continue
        active, per_slab, pages = int(words[1]), int(words[4]), int(words[5])
        caches[words[0]] = (active, pages * PAGE / per_slab)
    return caches


def read_slabinfo():
    with open("/proc/slabinfo", encoding="ascii") as file:
        return parse_slabinfo(file.read())


def kernel_growth(before, after, least=0):
    """
    Bytes of slab objects that are there more, without closed connections of earlier runs that go
    meanwhile, and without inodes of /proc. Caches that grew by fewer than `least` objects are left
    out: on a machine with other work to do they aren't ours.
    """
    total = 0.0
    for name, (active, size) in after.items():
        grown_by = active - before.get(name, (0, 0))[0]
        if name != "tw_sock_TCP" and (least == 0 or grown_by >= least):
            total += grown_by * size
    inodes = after.get("proc_inode_cache", (0, 0))[0] - before.get("proc_inode_cache", (0, 0))[0]
    if least and inodes < least:
        return total
    return total - inodes * sum(after.get(name, (0, 0))[1] for name in PROC_INODE)


def client_end(before, after, count):
    """
    What the client's end of each of `count` connections costs, from the caches' sizes: that of a
    plain socket, and the port's bucket, which shares its cache with epoll's items.
    """
    size = sum(after.get(name, (0, 0))[1] for name in CLIENT_END)
    shared = after.get("eventpoll_epi", (0, 0))
    return size + (shared[0] - before.get("eventpoll_epi", (0, 0))[0]) / count * shared[1]
