// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared *s;
static enum door door;
static int device;

static void fill_attr(struct fuse_attr *a, uint64_t ino)
{
	memset(a, 0, sizeof(*a));
	a->ino = ino;
	a->mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
	a->nlink = 1;
	a->size = ino == FUSE_ROOT_ID || ino >= FIRST_CREATED ? 0 : FILE_SIZE;
	a->blksize = 4096;
}

static void fill_entry(struct fuse_entry_out *e, uint64_t ino)
{
	memset(e, 0, sizeof(*e));
	e->nodeid = ino;
	e->entry_valid = e->attr_valid = 3600;
	fill_attr(&e->attr, ino);
}

static struct handle_seen *seen(uint64_t fh)
{
	return &s->handle[fh % HANDLES_MAX];
}

static void fill_open(struct fuse_open_out *o)
{
	memset(o, 0, sizeof(*o));
	o->fh = atomic_fetch_add(&s->opens, 1);
	o->open_flags = s->open_flags;
}

static void pause_ms(int ms)
{
	if (ms)
		usleep(ms * 1000);
}

static void answer_init(const struct fuse_init_in *in, struct answer *a)
{
	struct fuse_init_out *out = (void *)a->data;
	uint64_t offered = in->flags | (uint64_t)in->flags2 << 32;
	uint64_t want = FUSE_INIT_EXT | FUSE_MAX_PAGES | FUSE_ASYNC_READ | s->init_flags;

	s->offered = offered;
	if (!s->refuse_sync)
		want |= FUSE_SYNC_RELEASE;
	if (door == URING)
		want |= FUSE_OVER_IO_URING;
	/* What is asked for is asked for, offered or not: the kernel has to ignore the rest. */
	a->len = sizeof(*out);
	memset(out, 0, sizeof(*out));
	out->major = FUSE_KERNEL_VERSION;
	out->minor = FUSE_KERNEL_MINOR_VERSION;
	out->max_readahead = MAX_WRITE;
	out->flags = want;
	out->flags2 = want >> 32;
	out->max_background = s->max_background ? s->max_background : 12;
	out->congestion_threshold = out->max_background;
	out->max_write = MAX_WRITE;
	out->max_pages = MAX_WRITE / 4096;
}

static void answer_flush(const struct fuse_flush_in *in, struct answer *a)
{
	struct handle_seen *h = seen(in->fh);

	if (h->last_flushes)
		s->after_last++;
	s->flushes++;
	h->flushes++;
	pause_ms(s->flush_ms);
	if (in->flags & ~(uint32_t)FUSE_FLUSH_LAST || in->padding)
		s->flush_flags_other++;
	if (in->flags & FUSE_FLUSH_LAST) {
		s->last_flushes++;
		h->last_flushes++;
		a->error = -s->last_flush_error;
	}
	if (s->flush_enosys)
		a->error = -ENOSYS;
}

static void answer_release(const struct fuse_release_in *in)
{
	s->writes_at_release = s->writes;
	s->reads_open_at_release = s->reads - s->reads_done;
	s->releases++;
	seen(in->fh)->releases++;
	pause_ms(s->release_ms);
	while (s->release_hold)
		pause_ms(5);
	s->acked++;
	seen(in->fh)->acked++;
}

bool is_slow(const struct request *r)
{
	switch (r->h.opcode) {
	case FUSE_READ:
		return s->read_ms || s->read_hold;
	case FUSE_FLUSH:
		return s->flush_ms;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return s->release_ms || s->release_hold;
	}
	return false;
}

void answer(const struct request *r, struct answer *a)
{
	const void *in = r->op_in;

	a->none = false;
	a->error = 0;
	a->len = 0;
	switch (r->h.opcode) {
	case FUSE_INIT:
		answer_init(in, a);
		break;
	case FUSE_LOOKUP:
		if (r->payload[0] == 'f') {
			fill_entry((void *)a->data, FIRST_FILE + atoi(r->payload + 1));
			a->len = sizeof(struct fuse_entry_out);
		} else {
			a->error = -ENOENT;
		}
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR: {
		struct fuse_attr_out *out = (void *)a->data;

		memset(out, 0, sizeof(*out));
		out->attr_valid = 3600;
		fill_attr(&out->attr, r->h.nodeid);
		a->len = sizeof(*out);
		break;
	}
	case FUSE_CREATE: {
		static atomic_int created;
		struct fuse_entry_out *entry = (void *)a->data;

		fill_entry(entry, FIRST_CREATED + created++);
		fill_open((void *)(entry + 1));
		a->len = sizeof(*entry) + sizeof(struct fuse_open_out);
		break;
	}
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		if (s->open_enosys && r->h.opcode == FUSE_OPEN) {
			a->error = -ENOSYS;
			break;
		}
		fill_open((void *)a->data);
		a->len = sizeof(struct fuse_open_out);
		break;
	case FUSE_READ: {
		const struct fuse_read_in *read_in = in;

		s->reads++;
		pause_ms(s->read_ms);
		while (s->read_hold)
			pause_ms(5);
		a->len = read_in->size;
		memset(a->data, 'r', a->len);
		s->reads_done++;
		break;
	}
	case FUSE_WRITE: {
		const struct fuse_write_in *write_in = in;
		struct fuse_write_out *out = (void *)a->data;

		s->writes++;
		if (seen(write_in->fh)->last_flushes)
			s->after_last++;
		memset(out, 0, sizeof(*out));
		out->size = write_in->size;
		a->len = sizeof(*out);
		break;
	}
	case FUSE_FLUSH:
		answer_flush(in, a);
		break;
	case FUSE_RELEASE:
		answer_release(in);
		break;
	case FUSE_RELEASEDIR:
		s->dir_releases++;
		pause_ms(s->release_ms);
		while (s->release_hold)
			pause_ms(5);
		s->dir_acked++;
		break;
	case FUSE_STATFS: {
		struct fuse_statfs_out *out = (void *)a->data;

		memset(out, 0, sizeof(*out));
		out->st.bsize = 4096;
		out->st.namelen = 255;
		a->len = sizeof(*out);
		break;
	}
	case FUSE_READDIR:
	case FUSE_FSYNC:
	case FUSE_DESTROY:
		break;
	case FUSE_INTERRUPT:
		s->interrupts++;
		a->none = true;
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		a->none = true;
		break;
	default:
		a->error = -ENOSYS;
	}
}

/* How many bytes of a request's body are its fixed part; the rest is names and data. */
static size_t fixed_part(const struct fuse_in_header *h)
{
	switch (h->opcode) {
	case FUSE_LOOKUP:
		return 0;
	case FUSE_WRITE:
		return sizeof(struct fuse_write_in);
	case FUSE_CREATE:
		return sizeof(struct fuse_create_in);
	}
	return h->len - sizeof(*h);
}

/* Numbers and who asks differ from run to run, and so does the lock owner, which the kernel scrambles. */
static void print_request(const char *buffer, size_t len)
{
	struct fuse_in_header h;

	memcpy(&h, buffer, sizeof(h));
	if (h.opcode == FUSE_FORGET || h.opcode == FUSE_BATCH_FORGET)
		return;
	printf("op %u nodeid %llu len %u extlen %u", h.opcode, (unsigned long long)h.nodeid, h.len, h.total_extlen);
	for (size_t at = sizeof(h); at < len && at < sizeof(h) + 64; at++) {
		size_t in = at - sizeof(h);
		bool owner = (h.opcode == FUSE_FLUSH && in >= offsetof(struct fuse_flush_in, lock_owner)) ||
			     (h.opcode == FUSE_WRITE && in >= offsetof(struct fuse_write_in, lock_owner) &&
			      in < offsetof(struct fuse_write_in, lock_owner) + 8) ||
			     (h.opcode == FUSE_READ && in >= offsetof(struct fuse_read_in, lock_owner) &&
			      in < offsetof(struct fuse_read_in, lock_owner) + 8);
		/* INIT offers one bit more with the series: bit 30 of flags2. */
		unsigned char byte = buffer[at];

		if (h.opcode == FUSE_INIT && in == offsetof(struct fuse_init_in, flags2) + 3)
			byte &= ~0x40;
		printf(" %s%02x", in % 8 ? "" : "| ", owner ? 0 : byte);
	}
	printf("\n");
	fflush(stdout);
}

static bool serve_one(char *buffer, size_t size, struct answer *a)
{
	ssize_t len = read(device, buffer, size);
	struct request r;

	if (len < 0)
		return errno == EINTR || errno == EAGAIN || errno == ENOENT;
	memcpy(&r.h, buffer, sizeof(r.h));
	if (s->trace)
		print_request(buffer, len);
	r.op_in = buffer + sizeof(r.h);
	r.payload = (const char *)r.op_in + fixed_part(&r.h);
	answer(&r, a);
	if (!a->none) {
		struct fuse_out_header out = {
			.len = sizeof(out) + (a->error ? 0 : a->len),
			.error = a->error,
			.unique = r.h.unique,
		};
		struct iovec iov[2] = { { &out, sizeof(out) }, { a->data, a->error ? 0 : a->len } };

		/* An answer to what was aborted meanwhile is no error of ours. */
		if (writev(device, iov, 2) < 0 && errno != ENOENT && errno != ENODEV)
			fprintf(stderr, "# server: answer to op %u: %s\n", r.h.opcode, strerror(errno));
	}
	return true;
}

static void *serve_device(void *unused)
{
	size_t size = MAX_WRITE + 8192;
	char *buffer = malloc(size);
	struct answer *a = malloc(sizeof(*a));

	(void)unused;
	while (serve_one(buffer, size, a))
		;
	exit(0);
}

/* Takes whatever descriptors come through the socket, and gives them up as it is told. */
static void *do_tasks(void *unused)
{
	(void)unused;
	for (;;) {
		char word, control[CMSG_SPACE(sizeof(int))];
		struct iovec iov = { &word, 1 };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

		while (!s->task_go)
			pause_ms(1);
		/* 'c': look at the word only, then close the socket with the message in it. */
		if (recv(s->task_socket, &word, 1, MSG_PEEK) <= 0)
			return NULL;
		if (word == 'c') {
			close(s->task_socket);
			s->task_done++;
			return NULL;
		}
		/* 'r': receive the descriptor and close it. */
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		if (recvmsg(s->task_socket, &m, 0) <= 0)
			return NULL;
		int fd;

		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
		close(fd);
		s->task_done++;
	}
}

static void start(void *(*run)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, NULL))
		_exit(1);
	pthread_detach(thread);
}

static void serve_in_this_process(void)
{
	int threads = s->threads ? s->threads : 4;

	s->serving++;
	if (s->task_socket >= 0)
		start(do_tasks);
	if (door == URING) {
		start(serve_device);
		/* The queues can be registered once INIT is answered, which `offered` tells. */
		while (!s->offered)
			usleep(1000);
		serve_uring_queues(device);
	}
	while (--threads > 0)
		start(serve_device);
	serve_device(NULL);
}

void serve(int fd, enum door with)
{
	int processes = s->processes ? s->processes : 1;

	device = fd;
	door = with;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	while (s->one_request_each) {
		pid_t child = fork();

		if (child == 0) {
			size_t size = MAX_WRITE + 8192;

			_exit(!serve_one(malloc(size), size, malloc(sizeof(struct answer))));
		}
		int status;

		waitpid(child, &status, 0);
		if (status)
			_exit(1);
	}
	while (--processes > 0) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	}
	serve_in_this_process();
	_exit(0);
}
