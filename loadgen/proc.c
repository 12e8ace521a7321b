#include "loadgen/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 64
#define LINE_BYTES 512
#define TCP_LISTEN 0x0aU
#define INODES_MAX 64
#define NS_PER_S   1000000000ULL

/* The first line of a file, without its end. */
static bool read_line(const char *path, char *line, size_t bytes)
{
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        return false;
    }

    const bool read = fgets(line, (int)bytes, file) != NULL;

    (void)fclose(file);
    if (read) {
        line[strcspn(line, "\n")] = '\0';
    }
    return read;
}

/* ---- the server's process */

/* Inodes of listening sockets on that port, out of /proc/net/tcp or tcp6. */
static size_t listeners(const char *path, uint16_t port, uint64_t *inodes, size_t count)
{
    FILE *file = fopen(path, "re");
    char line[LINE_BYTES];

    while (file != NULL && count < INODES_MAX && fgets(line, sizeof line, file) != NULL) {
        /* sl, local address:port, remote address:port, state, queues, timer, retransmits, uid,
         * timeout, inode */
        char *words[10] = { NULL };
        char *rest = line;
        size_t word_count = 0;

        while (word_count < 10 && (words[word_count] = strtok_r(rest, " \n", &rest)) != NULL) {
            word_count++;
        }
        if (word_count < 10) {
            continue;
        }

        const char *colon = strchr(words[1], ':');

        if (colon != NULL && strtoul(colon + 1, NULL, 16) == port &&
            strtoul(words[3], NULL, 16) == TCP_LISTEN) {
            inodes[count++] = strtoull(words[9], NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return count;
}

static bool holds_socket(const char *pid, const uint64_t *inodes, size_t count)
{
    char path[PATH_BYTES];
    const struct dirent *entry;
    bool found = false;

    (void)snprintf(path, sizeof path, "/proc/%.16s/fd", pid);

    DIR *folder = opendir(path);

    while (folder != NULL && !found && (entry = readdir(folder)) != NULL) {
        char target[64];
        const ssize_t bytes = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);

        if (bytes <= 0) {
            continue;
        }
        target[bytes] = '\0';
        if (strncmp(target, "socket:[", 8) != 0) {
            continue;
        }
        for (size_t i = 0; i < count && !found; i++) {
            found = strtoull(target + 8, NULL, 10) == inodes[i];
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return found;
}

pid_t proc_find_listener(uint16_t port)
{
    uint64_t inodes[INODES_MAX];
    size_t count = listeners("/proc/net/tcp", port, inodes, 0);
    const struct dirent *entry;
    pid_t pid = -1;

    count = listeners("/proc/net/tcp6", port, inodes, count);
    if (count == 0) {
        return 0;
    }

    DIR *folder = opendir("/proc");

    while (folder != NULL && pid < 0 && (entry = readdir(folder)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0]) != 0 &&
            holds_socket(entry->d_name, inodes, count)) {
            pid = (pid_t)strtol(entry->d_name, NULL, 10);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return pid;
}

pid_t proc_read_pid_file(const char *path)
{
    char line[LINE_BYTES];

    return read_line(path, line, sizeof line) ? (pid_t)strtol(line, NULL, 10) : 0;
}

/* ---- CPU */

static uint64_t thread_cpu_ns(const char *pid_folder, const char *thread)
{
    char path[PATH_BYTES * 2];
    char line[LINE_BYTES];

    (void)snprintf(path, sizeof path, "%s/%.16s/schedstat", pid_folder, thread);
    if (read_line(path, line, sizeof line)) {
        return strtoull(line, NULL, 10); /* exact, where the kernel keeps it */
    }
    (void)snprintf(path, sizeof path, "%s/%.16s/stat", pid_folder, thread);
    if (!read_line(path, line, sizeof line)) {
        return 0;
    }

    char *at = strrchr(line, ')'); /* a name may have anything in it */
    uint64_t ticks = 0;

    /* state is word 1 behind it, utime 12, stime 13 */
    for (int word = 0; at != NULL && word < 14; word++) {
        char *text = strtok_r(word == 0 ? at : NULL, " ", &at);
        if (text == NULL) {
            return 0;
        }
        if (word >= 12) {
            ticks += strtoull(text, NULL, 10);
        }
    }
    return ticks * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void add_thread(struct proc_cpu *cpu, const char *name, uint64_t cpu_ns)
{
    size_t bytes = strlen(name);

    while (bytes > 1 && (isdigit((unsigned char)name[bytes - 1]) != 0 || name[bytes - 1] == '-' ||
                         name[bytes - 1] == '/')) {
        bytes--;
    }
    cpu->cpu_ns += cpu_ns;
    for (uint32_t i = 0; i < cpu->name_count; i++) {
        struct proc_threads *threads = &cpu->names[i];

        if (strlen(threads->name) == bytes && memcmp(threads->name, name, bytes) == 0) {
            threads->count++;
            threads->cpu_ns += cpu_ns;
            return;
        }
    }
    if (cpu->name_count < PROC_NAMES_MAX && bytes < sizeof cpu->names[0].name) {
        struct proc_threads *threads = &cpu->names[cpu->name_count++];

        memcpy(threads->name, name, bytes);
        threads->name[bytes] = '\0';
        threads->count = 1;
        threads->cpu_ns = cpu_ns;
    }
}

bool proc_cpu_take(struct proc_cpu *cpu, pid_t pid)
{
    char folder_path[PATH_BYTES];
    const struct dirent *entry;

    memset(cpu, 0, sizeof *cpu);
    (void)snprintf(folder_path, sizeof folder_path, "/proc/%d/task", (int)pid);

    DIR *folder = pid > 0 ? opendir(folder_path) : NULL;

    if (folder == NULL) {
        return false;
    }
    cpu->pid = pid;
    while ((entry = readdir(folder)) != NULL) {
        char path[PATH_BYTES * 2];
        char name[LINE_BYTES];

        if (isdigit((unsigned char)entry->d_name[0]) == 0) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/%.16s/comm", folder_path, entry->d_name);
        if (read_line(path, name, sizeof name)) {
            add_thread(cpu, name, thread_cpu_ns(folder_path, entry->d_name));
        }
    }
    (void)closedir(folder);
    return cpu->name_count > 0;
}

bool proc_cpu_between(struct proc_cpu *used, const struct proc_cpu *before,
                      const struct proc_cpu *after)
{
    if (before->pid == 0 || before->pid != after->pid || after->cpu_ns < before->cpu_ns) {
        return false;
    }
    *used = *after;
    used->cpu_ns -= before->cpu_ns;
    for (uint32_t i = 0; i < used->name_count; i++) {
        for (uint32_t j = 0; j < before->name_count; j++) {
            if (strcmp(used->names[i].name, before->names[j].name) == 0 &&
                used->names[i].cpu_ns >= before->names[j].cpu_ns) {
                used->names[i].cpu_ns -= before->names[j].cpu_ns;
            }
        }
    }
    return true;
}

/* ---- memory */

uint64_t proc_anonymous_bytes(pid_t pid)
{
    char path[PATH_BYTES];
    char line[LINE_BYTES];
    uint64_t kilobytes = 0;

    (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);

    FILE *file = fopen(path, "re");

    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "Pss_Anon:", 9) == 0) {
            kilobytes = strtoull(line + 9, NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kilobytes * 1024;
}

static void take_slab(struct proc_kernel *kernel, char *line)
{
    /* name, active objects, objects, object size, objects a slab, pages a slab */
    char *words[6] = { NULL };
    char *rest = line;
    size_t count = 0;

    while (count < 6 && (words[count] = strtok_r(rest, " \n", &rest)) != NULL) {
        count++;
    }
    if (count < 6 || isdigit((unsigned char)words[1][0]) == 0 ||
        kernel->slab_count == PROC_SLABS_MAX) {
        return;
    }

    struct proc_slab *slab = &kernel->slabs[kernel->slab_count];
    const double per_slab = strtod(words[4], NULL);

    (void)snprintf(slab->name, sizeof slab->name, "%s", words[0]);
    slab->objects = strtod(words[1], NULL);
    slab->object_bytes =
        per_slab > 0 ? strtod(words[5], NULL) * (double)sysconf(_SC_PAGESIZE) / per_slab : 0;
    kernel->slab_count++;
}

void proc_kernel_take(struct proc_kernel *kernel)
{
    char line[LINE_BYTES];
    FILE *file = fopen("/proc/slabinfo", "re");

    memset(kernel, 0, sizeof *kernel);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        take_slab(kernel, line);
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    file = fopen("/proc/net/sockstat", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *memory = strstr(line, " mem ");

        if (strncmp(line, "TCP:", 4) == 0 && memory != NULL) {
            kernel->tcp_bytes = strtod(memory + 5, NULL) * (double)sysconf(_SC_PAGESIZE);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

static double objects_of(const struct proc_kernel *kernel, const char *name, double *object_bytes)
{
    for (uint32_t i = 0; i < kernel->slab_count; i++) {
        if (strcmp(kernel->slabs[i].name, name) == 0) {
            *object_bytes = kernel->slabs[i].object_bytes;
            return kernel->slabs[i].objects;
        }
    }
    *object_bytes = 0;
    return 0;
}

/* What a client's end consists of: one each of these, while its poll is armed. */
static double client_end(const struct proc_kernel *before, const struct proc_kernel *after,
                         double connections)
{
    static const char *const ones[] = { "TCP",     "sock_inode_cache", "filp",
                                        "dentry",  "lsm_inode_cache",  "lsm_file_cache",
                                        "io_kiocb" };
    double bytes;
    double sum = 0;

    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++) {
        (void)objects_of(after, ones[i], &bytes);
        sum += bytes;
    }

    /* Bind buckets of source ports; the kernel merges their caches with this one. */
    const double grown =
        objects_of(after, "eventpoll_epi", &bytes) - objects_of(before, "eventpoll_epi", &bytes);

    return sum + grown / connections * bytes;
}

bool proc_kernel_between(struct proc_kernel_growth *growth, const struct proc_kernel *before,
                         const struct proc_kernel *after, uint32_t connections)
{
    double sum = 0;
    double bytes;
    double inode_bytes = 0;
    double old_bytes;

    memset(growth, 0, sizeof *growth);
    if (before->slab_count == 0 || after->slab_count == 0 || connections == 0) {
        return false;
    }
    for (uint32_t i = 0; i < after->slab_count; i++) {
        const struct proc_slab *slab = &after->slabs[i];

        /* What earlier connections left behind goes meanwhile. */
        if (strcmp(slab->name, "tw_sock_TCP") != 0) {
            sum +=
                (slab->objects - objects_of(before, slab->name, &old_bytes)) * slab->object_bytes;
        }
    }

    /*
     * Whoever walks /proc/PID/fd meanwhile leaves an inode, a dentry and a label for each plain
     * descriptor until memory is short: no cost of a connection.
     */
    const double walked = objects_of(after, "proc_inode_cache", &inode_bytes) -
                          objects_of(before, "proc_inode_cache", &old_bytes);

    (void)objects_of(after, "dentry", &bytes);
    inode_bytes += bytes;
    (void)objects_of(after, "lsm_inode_cache", &bytes);
    inode_bytes += bytes;
    growth->both_bytes = (sum - walked * inode_bytes) / connections;
    growth->client_bytes = client_end(before, after, connections);
    growth->server_bytes = growth->both_bytes - growth->client_bytes;
    growth->tcp_bytes = (after->tcp_bytes - before->tcp_bytes) / connections;
    return true;
}
