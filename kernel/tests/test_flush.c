// SPDX-License-Identifier: GPL-2.0-only
/* FUSE_FLUSH_LAST: on the last FLUSH of a file that nothing else refers to, and on no other. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

TEST(plain_closes_all_have_a_last_flush, ON_BOTH)
{
	start();
	for (int i = 0; i < 30; i++)
		close(open_file(i, i % 2 ? O_RDWR : O_RDONLY));
	EXPECT(s->flushes == 30 && s->last_flushes == 30);
}

TEST(error_of_the_last_flush_comes_out_of_the_last_close, ON_BOTH)
{
	s->last_flush_error = EDQUOT;
	start();
	int fd = open_file(0, O_RDWR), other = dup(fd);

	EXPECT(close(fd) == 0);
	EXPECT(close(other) == -1 && errno == EDQUOT);
	EXPECT(s->acked == 1);
}

TEST(mapped_file_has_no_last_flush, ON_BOTH)
{
	start();
	int fd = open_file(0, O_RDONLY);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	close(fd);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	munmap(map, 4096);
	EXPECT(s->flushes == 1 && s->acked == 1);
}

TEST(mapping_that_went_before_exit_does_not_hide_the_last_flush, ON_BOTH)
{
	pid_t child;

	start();
	if (in_child(&child)) {
		mmap(NULL, 4096, PROT_READ, MAP_SHARED, open_file(0, O_RDONLY), 0);
		_exit(0);
	}
	EXPECT(end_of(child) == 0);
	EXPECT(s->flushes == 1 && s->last_flushes == 1);
	EXPECT(s->acked == 1);
}

TEST(file_in_flight_has_no_last_flush, ON_BOTH)
{
	int pair[2];
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	char byte = 'x';
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	start();
	int fd = open_file(0, O_RDWR);

	EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	*(int *)CMSG_DATA(c) = fd;
	EXPECT(sendmsg(pair[0], &m, 0) == 1);
	close(fd);
	EXPECT(s->last_flushes == 0);
	EXPECT(recvmsg(pair[1], &m, 0) == 1);
	close(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&m)));
	EXPECT(s->last_flushes == 1);
	EXPECT(s->acked == 1);
}

/* Overlayfs flushes the one reference to its backing file each time one of its own is closed. */
TEST(file_below_overlayfs_never_has_a_last_flush, ON_BOTH)
{
	s->release_ms = 300;
	start();
	mkdir("/tmp/ackfs-empty", 0755);
	mkdir("/tmp/ackfs-over", 0755);
	if (mount("overlay", "/tmp/ackfs-over", "overlay", MS_RDONLY, "lowerdir=" MNT ":/tmp/ackfs-empty"))
		skip("no overlayfs in this kernel");
	int fd = open("/tmp/ackfs-over/f0", O_RDONLY);

	EXPECT(fd >= 0);
	int other = dup(fd);

	close(fd);
	EXPECT(s->flushes == 1);
	EXPECT(s->last_flushes == 0);
	EXPECT(s->releases == 0);
	close(other);
	EXPECT(s->flushes == 2);
	EXPECT(s->last_flushes == 0);
	/* And yet the last close waits, because its task puts the backing file. */
	EXPECT(s->acked == 1);
	umount2("/tmp/ackfs-over", MNT_DETACH);
}

static void shuffle(unsigned int seed)
{
	srand(seed);
	for (int round = 0; round < 12; round++) {
		int fd[4] = { open_file(rand() % 8, O_RDWR), -1, -1, -1 };
		pid_t child = 0;

		for (int i = 1; i < 4; i++)
			fd[i] = rand() % 2 ? dup(fd[0]) : -1;
		if (rand() % 2 && in_child(&child)) {
			if (write(fd[0], "x", 1) != 1)
				_exit(1);
			usleep(rand() % 3000);
			close(fd[0]);
			_exit(0);
		}
		for (int i = 0; i < 4; i++) {
			if (fd[i] < 0)
				continue;
			if (write(fd[i], "y", 1) != 1)
				fail("write", i, "1");
			usleep(rand() % 2000);
			close(fd[i]);
		}
		if (child)
			EXPECT(end_of(child) == 0);
	}
}

/* What the flag says is checked by the server on each FLUSH and WRITE: none comes after a last one. */
TEST(last_flush_is_never_followed_by_another_use, ON_BOTH)
{
	pid_t child[4];

	s->release_ms = 1;
	start();
	for (int i = 0; i < 4; i++) {
		if (in_child(&child[i])) {
			shuffle(42 + i);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++)
		EXPECT(end_of(child[i]) == 0);
	EXPECT(s->after_last == 0);
	EXPECT(s->acked == s->opens && s->opens == 48);
	for (int i = 0; i < s->opens; i++)
		EXPECT(s->handle[i].last_flushes <= 1 && s->handle[i].releases == 1);
	/* Most of them end in a close that nothing races with. */
	EXPECT(s->last_flushes > 24);
}
