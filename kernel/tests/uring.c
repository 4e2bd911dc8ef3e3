// SPDX-License-Identifier: GPL-2.0-only
/*
 * The io_uring side of the server: one thread and one ring for each queue, as the kernel asks for. A
 * queue's thread answers at once what takes no time. What is slow goes to a thread of its own, comes
 * back through a list and an eventfd that the ring reads, and is committed by the queue's thread; with
 * `serial`, the queue's thread does that too.
 */
#define _GNU_SOURCE
#include "uring.h"
#include "server.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- A ring, just enough of one ------------------------------------------------------------------ */

int ring_open(struct ring *ring, unsigned int entries, unsigned int flags)
{
	struct io_uring_params p = { .flags = flags };
	size_t sqe_size = flags & IORING_SETUP_SQE128 ? 128 : 64;

	ring->fd = syscall(SYS_io_uring_setup, entries, &p);
	if (ring->fd < 0)
		return -errno;
	ring->sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	ring->cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
			PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(NULL, p.sq_entries * sqe_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			  ring->fd, IORING_OFF_SQES);
	ring->p = p;
	ring->sqe_size = sqe_size;
	ring->to_submit = 0;
	return 0;
}

void ring_close(struct ring *ring)
{
	munmap(ring->sq, ring->p.sq_off.array + ring->p.sq_entries * 4);
	munmap(ring->cq, ring->p.cq_off.cqes + ring->p.cq_entries * sizeof(struct io_uring_cqe));
	munmap(ring->sqes, ring->p.sq_entries * ring->sqe_size);
	close(ring->fd);
}

struct io_uring_sqe *ring_sqe(struct ring *ring)
{
	unsigned int *tail = (void *)(ring->sq + ring->p.sq_off.tail);
	unsigned int *array = (void *)(ring->sq + ring->p.sq_off.array);
	unsigned int at = *tail & (ring->p.sq_entries - 1);
	struct io_uring_sqe *sqe = (void *)(ring->sqes + at * ring->sqe_size);

	memset(sqe, 0, ring->sqe_size);
	array[at] = at;
	ring->to_submit++;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	return sqe;
}

int ring_enter(struct ring *ring, unsigned int wait)
{
	int done = syscall(SYS_io_uring_enter, ring->fd, ring->to_submit, wait,
			   wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0);

	if (done >= 0)
		ring->to_submit -= done;
	return done < 0 ? -errno : done;
}

bool ring_cqe(struct ring *ring, struct io_uring_cqe *cqe)
{
	unsigned int *head = (void *)(ring->cq + ring->p.cq_off.head);
	unsigned int *tail = (void *)(ring->cq + ring->p.cq_off.tail);
	struct io_uring_cqe *cqes = (void *)(ring->cq + ring->p.cq_off.cqes);

	if (*head == __atomic_load_n(tail, __ATOMIC_ACQUIRE))
		return false;
	*cqe = cqes[*head & (ring->p.cq_entries - 1)];
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return true;
}

/* --- The server's queues ------------------------------------------------------------------------- */

#define DEPTH_MAX 64
#define EVENT_TOKEN 1000000

struct entry {
	struct queue *queue;
	struct fuse_uring_req_header header;
	struct iovec iov[2];
	char *payload;
	struct answer *answer;
	struct entry *next;
	int index;
};

struct queue {
	struct ring ring;
	int id, device, event;
	uint64_t event_value;
	pthread_mutex_t lock;
	struct entry *answered;
	struct entry entry[DEPTH_MAX];
};

static void command(struct entry *e, unsigned int op, uint64_t commit_id)
{
	struct queue *q = e->queue;
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);
	struct fuse_uring_cmd_req *cmd = (void *)sqe->cmd;

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = q->device;
	sqe->cmd_op = op;
	sqe->user_data = e->index;
	sqe->addr = (uint64_t)e->iov;
	sqe->len = 2;
	cmd->qid = q->id;
	cmd->commit_id = commit_id;
}

static void commit(struct entry *e)
{
	struct fuse_in_header h;
	struct fuse_out_header out;
	struct answer *a = e->answer;

	memcpy(&h, e->header.in_out, sizeof(h));
	out.unique = h.unique;
	out.error = a->error;
	out.len = sizeof(out) + (a->error ? 0 : a->len);
	memcpy(e->header.in_out, &out, sizeof(out));
	memcpy(e->payload, a->data, a->error ? 0 : a->len);
	e->header.ring_ent_in_out.payload_sz = a->error ? 0 : a->len;
	command(e, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, e->header.ring_ent_in_out.commit_id);
}

static void request_of(struct entry *e, struct request *r)
{
	memcpy(&r->h, e->header.in_out, sizeof(r->h));
	r->op_in = e->header.op_in;
	r->payload = e->payload;
}

static void *answer_slowly(void *arg)
{
	struct entry *e = arg;
	struct queue *q = e->queue;
	struct request r;
	uint64_t one = 1;

	request_of(e, &r);
	answer(&r, e->answer);
	pthread_mutex_lock(&q->lock);
	e->next = q->answered;
	q->answered = e;
	pthread_mutex_unlock(&q->lock);
	if (write(q->event, &one, sizeof(one)) < 0)
		perror("# server: eventfd");
	return NULL;
}

static void watch_event(struct queue *q)
{
	struct io_uring_sqe *sqe = ring_sqe(&q->ring);

	sqe->opcode = IORING_OP_READ;
	sqe->fd = q->event;
	sqe->addr = (uint64_t)&q->event_value;
	sqe->len = sizeof(q->event_value);
	sqe->user_data = EVENT_TOKEN;
}

static void take(struct entry *e)
{
	struct request r;
	pthread_t thread;

	request_of(e, &r);
	if (!s->serial && is_slow(&r) && pthread_create(&thread, NULL, answer_slowly, e) == 0) {
		pthread_detach(thread);
		return;
	}
	answer(&r, e->answer);
	commit(e);
}

static void *serve_queue(void *arg)
{
	struct queue *q = arg;
	int depth = s->depth ? s->depth : 8;
	struct io_uring_cqe cqe;
	cpu_set_t cpus = { 0 };

	/* As servers do; and what a test sends from one CPU then meets one thread. */
	CPU_SET(q->id, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (ring_open(&q->ring, 2 * DEPTH_MAX, IORING_SETUP_SQE128)) {
		fprintf(stderr, "# server: no ring\n");
		exit(1);
	}
	q->event = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&q->lock, NULL);
	watch_event(q);
	for (int i = 0; i < depth; i++) {
		struct entry *e = &q->entry[i];

		e->queue = q;
		e->index = i;
		e->payload = malloc(MAX_WRITE);
		e->answer = malloc(sizeof(*e->answer));
		e->iov[0] = (struct iovec){ &e->header, sizeof(e->header) };
		e->iov[1] = (struct iovec){ e->payload, MAX_WRITE };
		command(e, FUSE_IO_URING_CMD_REGISTER, 0);
	}
	for (;;) {
		int error = ring_enter(&q->ring, 1);

		if (error < 0 && error != -EINTR)
			exit(0);
		while (ring_cqe(&q->ring, &cqe)) {
			if (cqe.user_data == EVENT_TOKEN) {
				pthread_mutex_lock(&q->lock);
				struct entry *e = q->answered;

				q->answered = NULL;
				pthread_mutex_unlock(&q->lock);
				for (; e; e = e->next)
					commit(e);
				watch_event(q);
			} else if (cqe.res == 0) {
				take(&q->entry[cqe.user_data]);
			} else if (cqe.res == -EAGAIN) {
				/* INIT was seen but its answer not yet: once more. */
				usleep(1000);
				command(&q->entry[cqe.user_data], FUSE_IO_URING_CMD_REGISTER, 0);
			} else if (cqe.res == -ENOTCONN || cqe.res == -ECANCELED || cqe.res == -ENODEV) {
				exit(0);
			} else {
				fprintf(stderr, "# server: queue %d: %s\n", q->id, strerror(-cqe.res));
				exit(1);
			}
		}
	}
}

void serve_uring_queues(int fd)
{
	int queues = sysconf(_SC_NPROCESSORS_CONF);
	FILE *possible = fopen("/sys/devices/system/cpu/possible", "r");
	int first, last;
	pthread_t thread;

	if (possible) {
		int fields = fscanf(possible, "%d-%d", &first, &last);

		queues = fields == 2 ? last + 1 : 1;
		fclose(possible);
	}
	for (int i = 0; i < queues; i++) {
		struct queue *q = calloc(1, sizeof(*q));

		q->id = i;
		q->device = fd;
		if (pthread_create(&thread, NULL, serve_queue, q))
			_exit(1);
	}
	pthread_join(thread, NULL);
	_exit(0);
}
