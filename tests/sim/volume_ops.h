/*
 * volume_ops: the functions of store/volume.h as a table, so that a test can drive two of them.
 *
 * Thread   Any. Pure: constants.
 */
#pragma once

#include "store/volume.h"

typedef enum volume_status volume_find(struct volume_txn *txn, enum volume_table table,
                                       struct volume_bytes key, struct volume_bytes *found,
                                       struct volume_bytes *value);
typedef enum volume_status volume_step(struct volume_txn *txn, enum volume_table table,
                                       struct volume_bytes *found, struct volume_bytes *value);

struct volume_ops {
    void (*close)(struct volume *volume);
    enum volume_status (*write_begin)(struct volume *volume, size_t operations, size_t bytes,
                                      struct volume_txn **txn);
    enum volume_status (*put)(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes value);
    enum volume_status (*del)(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key);
    enum volume_status (*del_range)(struct volume_txn *txn, enum volume_table table,
                                    struct volume_bytes from, struct volume_bytes to);
    enum volume_status (*commit)(struct volume_txn *txn);
    void (*abort)(struct volume_txn *txn);
    enum volume_status (*sync)(struct volume *volume);
    struct volume_txn *(*reader_open)(struct volume *volume, struct hf_error *error);
    void (*reader_close)(struct volume_txn *reader);
    enum volume_status (*read_begin)(struct volume_txn *reader);
    void (*read_end)(struct volume_txn *reader);
    enum volume_status (*get)(struct volume_txn *txn, enum volume_table table,
                              struct volume_bytes key, struct volume_bytes *value);
    volume_find *seek;
    volume_find *seek_before;
    volume_step *next;
    volume_step *prev;
};

extern const struct volume_ops lmdb_ops;
extern const struct volume_ops map_ops;
