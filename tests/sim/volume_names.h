/*
 * volume_names: put before a source that defines or calls the functions of store/volume.h, it
 * renames them, so that one program can have two volumes: LMDB's, and the simulator's.
 *
 * Thread   None: names only.
 */
#pragma once

/* The names are those of functions. NOLINTBEGIN(readability-identifier-naming) */

#define volume_close        mapped_volume_close
#define volume_write_begin  mapped_volume_write_begin
#define volume_put          mapped_volume_put
#define volume_del          mapped_volume_del
#define volume_del_range    mapped_volume_del_range
#define volume_commit       mapped_volume_commit
#define volume_abort        mapped_volume_abort
#define volume_sync         mapped_volume_sync
#define volume_reader_open  mapped_volume_reader_open
#define volume_reader_close mapped_volume_reader_close
#define volume_read_begin   mapped_volume_read_begin
#define volume_read_end     mapped_volume_read_end
#define volume_get          mapped_volume_get
#define volume_seek         mapped_volume_seek
#define volume_seek_before  mapped_volume_seek_before
#define volume_next         mapped_volume_next
#define volume_prev         mapped_volume_prev
#define volume_text         mapped_volume_text
#define volume_reader_text  mapped_volume_reader_text
/* NOLINTEND(readability-identifier-naming) */
