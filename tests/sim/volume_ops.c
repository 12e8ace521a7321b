/* Compiled twice: VOLUME_OPS is lmdb_ops, or map_ops behind volume_names.h. */
#include "tests/sim/volume_ops.h"

const struct volume_ops VOLUME_OPS = {
    .close = volume_close,
    .write_begin = volume_write_begin,
    .put = volume_put,
    .del = volume_del,
    .del_range = volume_del_range,
    .commit = volume_commit,
    .abort = volume_abort,
    .sync = volume_sync,
    .reader_open = volume_reader_open,
    .reader_close = volume_reader_close,
    .read_begin = volume_read_begin,
    .read_end = volume_read_end,
    .get = volume_get,
    .seek = volume_seek,
    .seek_before = volume_seek_before,
    .next = volume_next,
    .prev = volume_prev,
};
