/* SPDX-License-Identifier: GPL-2.0-only */
/* Just enough of an io_uring for the server's queues and for clients: no library. */
#ifndef URING_H
#define URING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>

struct ring {
	int fd;
	char *sq, *cq, *sqes;
	size_t sqe_size;
	unsigned int to_submit;
	struct io_uring_params p;
};

int ring_open(struct ring *ring, unsigned int entries, unsigned int flags);
void ring_close(struct ring *ring);
struct io_uring_sqe *ring_sqe(struct ring *ring);	/* zeroed, queued; filled before ring_enter() */
int ring_enter(struct ring *ring, unsigned int wait);
bool ring_cqe(struct ring *ring, struct io_uring_cqe *cqe);

#endif
