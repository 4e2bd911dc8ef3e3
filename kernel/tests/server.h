/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A FUSE server that speaks the kernel's protocol itself, through /dev/fuse or through io_uring, and
 * that a test steers and watches through shared memory.
 *
 * It serves a root directory with the files f0, f1, ... of 1 MiB, and takes any other name in CREATE.
 * `acked` counters move before the answer is given, so whoever waited for the answer sees them moved;
 * that, and not a clock, is what tests look at.
 */
#ifndef SERVER_H
#define SERVER_H

#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum door { CLASSIC, URING };

#define HANDLES_MAX 4096
#define FILE_SIZE (1024 * 1024)
#define MAX_WRITE (128 * 1024)
#define FIRST_FILE 2
#define FIRST_CREATED 1000

struct handle_seen {
	atomic_int flushes, last_flushes, releases, acked;
};

struct shared {
	/* Set before serve(). */
	uint64_t init_flags;	/* wanted beyond what every server of ours asks for */
	bool refuse_sync;	/* do not answer INIT with FUSE_SYNC_RELEASE */
	uint32_t open_flags;	/* FOPEN_* of OPEN, CREATE and OPENDIR */
	int threads;		/* that read /dev/fuse, in each process; 0: four */
	int processes;		/* that serve it; 0: one */
	bool one_request_each;	/* each process serves one request and is replaced by the next */
	int depth;		/* entries of each io_uring queue; 0: eight */
	bool serial;		/* an io_uring queue answers one request after the other */
	int max_background;	/* 0: the kernel's default */
	bool flush_enosys, open_enosys;
	bool trace;		/* print each request as bytes */

	/* May change at any time. */
	atomic_int release_ms, read_ms, flush_ms;
	atomic_bool release_hold, read_hold;	/* wait until it is false */
	atomic_int last_flush_error;		/* errno that a FLUSH with FUSE_FLUSH_LAST fails with */

	/* What was seen. */
	_Atomic uint64_t offered;
	atomic_int serving;	/* processes that are about to read /dev/fuse for the first time */
	atomic_int opens, flushes, last_flushes, releases, acked;
	atomic_int reads, reads_done, writes, interrupts, dir_releases, dir_acked;
	atomic_int writes_at_release;	/* `writes` when the last RELEASE came */
	atomic_int reads_open_at_release;	/* READs unanswered when the last RELEASE came */
	atomic_int after_last;	/* FLUSHes and WRITEs of a handle after its FUSE_FLUSH_LAST */
	atomic_int flush_flags_other;	/* FLUSHes with bits that have no meaning */
	struct handle_seen handle[HANDLES_MAX];

	/* The server's own dealings with files: what test_server_task() does. */
	int task_socket;	/* -1: none */
	atomic_bool task_go;
	atomic_int task_done;
};

extern struct shared *s;

/* Runs in the server's process, never returns. `fd` is the mounted /dev/fuse. */
void serve(int fd, enum door door) __attribute__((noreturn));

/* One answer, worked out from one request; tests never call it. */
struct request {
	struct fuse_in_header h;
	const void *op_in;
	const char *payload;
};
struct answer {
	bool none;
	int error;
	size_t len;
	char data[MAX_WRITE];
};
bool is_slow(const struct request *r);
void answer(const struct request *r, struct answer *a);
void serve_uring_queues(int fd);

#endif
