// SPDX-License-Identifier: GPL-2.0-only
/*
 * The last reference falls where it should not wait: in a server of the connection, in a kernel thread,
 * in an io worker. What must hold is that RELEASE comes, once, and that the server goes on.
 */
#define _GNU_SOURCE
#include "client.h"
#include "uring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static void expect_server_alive(void)
{
	int before = s->opens, fd = open_file(77, O_RDONLY);

	EXPECT(s->opens == before + 1);
	close(fd);
	/* Nothing under way for the next look at `acked`, also where close() does not wait. */
	EVENTUALLY(s->acked == s->opens);
}

/*
 * fstests' generic/323 in small: aio on a file that is closed before it completes. The aio's reference
 * is the last, and it is dropped by the server's answer to the READ.
 */
static void aio_then_close(int number)
{
	static char *page;
	aio_context_t aio = 0;
	struct iocb io = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_nbytes = 4096 }, *ios = &io;
	struct io_event event;
	int before = s->acked, fd = open_file(number, O_RDONLY | O_DIRECT);

	if (!page)
		page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s->read_hold = true;
	io.aio_fildes = fd;
	io.aio_buf = (uint64_t)page;
	EXPECT(syscall(SYS_io_setup, 1, &aio) == 0);
	EXPECT(syscall(SYS_io_submit, aio, 1, &ios) == 1);
	close(fd);
	EXPECT(s->acked == before);
	s->read_hold = false;
	EXPECT(syscall(SYS_io_getevents, aio, 1, 1, &event, NULL) == 1);
	EXPECT(event.res == 4096 && page[0] == 'r');
	EVENTUALLY(s->acked == before + 1);
	EXPECT(syscall(SYS_io_destroy, aio) == 0);
}

TEST(aio_last_reference_falls_in_the_server, ON_BOTH)
{
	s->threads = 1;
	s->serial = true;
	s->init_flags = FUSE_ASYNC_DIO;
	pin_to_cpu(0);
	start();
	warm_enosys_flush();
	aio_then_close(0);
	expect_server_alive();
	for (int i = 0; i < 10; i++)
		aio_then_close(i);
	expect_server_alive();
	EVENTUALLY(s->releases == s->opens);
}

TEST(aio_last_reference_falls_in_one_of_several_server_processes, ON_CLASSIC)
{
	s->threads = 1;
	s->processes = 3;
	s->init_flags = FUSE_ASYNC_DIO;
	start();
	warm_enosys_flush();
	for (int i = 0; i < 20; i++)
		aio_then_close(i);
	expect_server_alive();
	s->release_ms = 300;
	int before = s->acked;

	close(open_file(1, O_RDONLY));
	EXPECT(s->acked == before + 1);
}

TEST(aio_in_flight_has_no_last_flush, ON_BOTH)
{
	s->init_flags = FUSE_ASYNC_DIO;
	start();
	aio_then_close(0);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
}

TEST(too_many_servers_and_nobody_waits, ON_CLASSIC)
{
	s->threads = 1;
	s->processes = 20;
	s->init_flags = FUSE_ASYNC_DIO;
	start();
	EVENTUALLY(s->serving == s->processes);
	usleep(500000);	/* and a moment later in read(2) */
	s->release_hold = true;
	close(open_file(0, O_RDONLY));
	EXPECT(s->acked == 0);
	s->release_hold = false;
	s->flush_enosys = true;
	close(open_file(0, O_RDONLY));
	EVENTUALLY(s->acked == 2);
	aio_then_close(1);
	expect_server_alive();
}

TEST(servers_that_have_gone_are_forgotten, ON_CLASSIC)
{
	s->one_request_each = true;
	start();
	for (int i = 0; i < 15; i++)
		close(open_file(i, O_RDONLY));
	s->release_ms = 200;
	close(open_file(0, O_RDONLY));
	EXPECT(s->acked == 16);
}

/* --- Descriptors in flight -------------------------------------------------------------------------- */

static void send_fd(int socket, char word, const int *fds, int n)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec iov = { &word, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
	struct cmsghdr *c;

	m.msg_controllen = CMSG_SPACE(n * sizeof(int));
	c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	EXPECT(sendmsg(socket, &m, 0) == 1);
}

static void server_gives_up(char word)
{
	int pair[2], fd;

	EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	s->task_socket = pair[1];
	start();
	fd = open_file(0, O_RDWR);
	s->release_hold = true;
	/* The reference in flight is the last one by the time the server looks at it. */
	int guard = dup(fd);

	close(fd);
	EXPECT(s->last_flushes == 0);
	send_fd(pair[0], word, &guard, 1);
	close(guard);
	EXPECT(s->releases == 0);
	s->task_go = true;
	EVENTUALLY(s->task_done == 1);
	EXPECT(s->acked == 0);
	EVENTUALLY(s->releases == 1);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
	expect_server_alive();
}

TEST(server_that_closes_a_received_file_does_not_wait, ON_BOTH)
{
	server_gives_up('r');
}

TEST(server_that_closes_a_socket_with_a_file_in_it_does_not_wait, ON_BOTH)
{
	server_gives_up('c');
	EXPECT(s->last_flushes == 1);	/* expect_server_alive()'s */
}

TEST(client_that_closes_a_socket_with_a_file_in_it_waits, ON_BOTH)
{
	int pair[2], fd;

	s->release_ms = 300;
	start();
	EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fd = open_file(0, O_RDWR);
	send_fd(pair[0], 'x', &fd, 1);
	close(fd);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	EXPECT(s->releases == 0);
	close(pair[1]);
	EXPECT(s->acked == 1);
}

TEST(collected_garbage_of_sockets_is_released_by_nobody, ON_BOTH)
{
	int pair[2], other[2], fds[2];

	s->release_hold = true;
	start();
	EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fds[0] = open_file(0, O_RDWR);
	fds[1] = pair[1];
	/* The socket holds the message that holds the socket. */
	send_fd(pair[0], 'x', fds, 2);
	close(fds[0]);
	close(pair[1]);
	close(pair[0]);
	EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, other) == 0);
	close(other[0]);
	close(other[1]);
	EVENTUALLY(s->releases == 1);
	EXPECT(s->acked == 0);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
	expect_server_alive();
}

/* --- io_uring clients -------------------------------------------------------------------------------- */

static void wait_cqe(struct ring *ring, struct io_uring_cqe *cqe)
{
	while (!ring_cqe(ring, cqe))
		EXPECT(ring_enter(ring, 1) >= 0);
}

TEST(io_uring_read_holds_the_last_reference, ON_BOTH)
{
	struct ring ring;
	struct io_uring_cqe cqe;
	static char data[4096] __attribute__((aligned(4096)));

	s->threads = 1;
	s->serial = true;
	s->init_flags = FUSE_ASYNC_DIO;
	pin_to_cpu(0);
	start();
	int used = warm_enosys_flush();
	int fd = open_file(0, O_RDONLY | O_DIRECT);

	EXPECT(ring_open(&ring, 4, 0) == 0);
	struct io_uring_sqe *sqe = ring_sqe(&ring);

	sqe->opcode = IORING_OP_READ;
	sqe->fd = fd;
	sqe->addr = (uint64_t)data;
	sqe->len = sizeof(data);
	s->read_hold = true;
	EXPECT(ring_enter(&ring, 0) == 1);
	close(fd);
	EXPECT(s->releases == used);
	s->read_hold = false;
	wait_cqe(&ring, &cqe);
	EXPECT(cqe.res == 4096 && data[0] == 'r');
	EVENTUALLY(s->acked == used + 1);
	expect_server_alive();
}

TEST(fixed_file_of_io_uring_is_waited_for_when_unregistered, ON_BOTH)
{
	struct ring ring;

	s->release_ms = 300;
	start();
	int fd = open_file(0, O_RDWR);

	EXPECT(ring_open(&ring, 4, 0) == 0);
	EXPECT(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &fd, 1) == 0);
	close(fd);
	EXPECT(s->releases == 0);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	EXPECT(syscall(SYS_io_uring_register, ring.fd, IORING_UNREGISTER_FILES, NULL, 0) == 0);
	EXPECT(s->acked == 1);
	EXPECT(s->releases == 1);
	expect_server_alive();
}

TEST(fixed_file_of_a_closed_io_uring_is_released_by_nobody, ON_BOTH)
{
	struct ring ring;

	s->release_hold = true;
	start();
	int fd = open_file(0, O_RDWR);

	EXPECT(ring_open(&ring, 4, 0) == 0);
	EXPECT(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &fd, 1) == 0);
	close(fd);
	ring_close(&ring);
	EVENTUALLY(s->releases == 1);
	EXPECT(s->acked == 0);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
	expect_server_alive();
}

TEST(io_uring_close_has_the_last_flush_but_not_the_release, ON_BOTH)
{
	struct ring ring;
	struct io_uring_cqe cqe;

	s->release_hold = true;
	s->last_flush_error = EDQUOT;
	start();
	int fd = open_file(0, O_RDWR);

	EXPECT(ring_open(&ring, 4, 0) == 0);
	struct io_uring_sqe *sqe = ring_sqe(&ring);

	sqe->opcode = IORING_OP_CLOSE;
	sqe->fd = fd;
	EXPECT(ring_enter(&ring, 1) == 1);
	wait_cqe(&ring, &cqe);
	EXPECT(cqe.res == -EDQUOT);
	EXPECT(s->last_flushes == 1);
	EXPECT(s->acked == 0);
	s->last_flush_error = 0;
	EVENTUALLY(s->releases == 1);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
	expect_server_alive();
}

/*
 * Exit cancels io_uring before it marks the task as exiting, and runs the task's work meanwhile. The
 * reference of a request in flight is dropped there, with signals out of reach already.
 */
static pid_t exit_with_a_read_in_flight(bool kill_it)
{
	struct ring ring;
	pid_t child;
	static char data[4096] __attribute__((aligned(4096)));

	s->init_flags = FUSE_ASYNC_DIO;
	start();
	int used = warm_enosys_flush();

	s->release_hold = s->read_hold = true;
	if (in_child(&child)) {
		int fd = open_file(0, O_RDONLY | O_DIRECT);
		struct io_uring_sqe *sqe;

		if (ring_open(&ring, 4, 0))
			_exit(2);
		sqe = ring_sqe(&ring);
		sqe->opcode = IORING_OP_READ;
		sqe->fd = fd;
		sqe->addr = (uint64_t)data;
		sqe->len = sizeof(data);
		if (ring_enter(&ring, 0) != 1)
			_exit(3);
		close(fd);
		if (kill_it)
			pause();
		_exit(0);
	}
	EVENTUALLY(s->reads == 1);
	usleep(300000);
	EXPECT(s->releases == used);
	if (kill_it)
		kill(child, SIGKILL);
	usleep(300000);
	s->read_hold = false;
	EVENTUALLY(s->releases == used + 1);
	return child;
}

TEST(exit_with_io_uring_in_flight_waits_no_longer_than_the_limit, ON_BOTH)
{
	set_exit_timeout(2);
	pid_t child = exit_with_a_read_in_flight(false);

	EXPECT(ended(child, 15000));
	EXPECT(end_of(child) == 0);
	EXPECT(s->acked == 1);
	s->release_hold = false;
	EVENTUALLY(s->acked == 2);
}

TEST(killed_holder_with_io_uring_in_flight_does_not_wait, ON_BOTH)
{
	pid_t child = exit_with_a_read_in_flight(true);

	EXPECT(ended(child, 15000));
	EXPECT(s->acked == 1);
	s->release_hold = false;
	EVENTUALLY(s->acked == 2);
}
