// SPDX-License-Identifier: GPL-2.0-only
/* Two modes of release_test that judge nothing: how long things take, and which bytes are sent. */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double one_close(int i)
{
	int fd = open_file(i, O_RDWR);
	double began = now_us();

	close(fd);
	return now_us() - began;
}

static double one_exit(int i)
{
	double began = now_us();
	pid_t child;

	if (in_child(&child)) {
		open_file(i, O_RDWR);
		_exit(0);
	}
	end_of(child);
	return now_us() - began;
}

static double one_munmap(int i)
{
	int fd = open_file(i, O_RDWR);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	close(fd);
	double began = now_us();

	munmap(map, 4096);
	return now_us() - began;
}

static int by_size(const void *a, const void *b)
{
	return *(const double *)a < *(const double *)b ? -1 : 1;
}

static double median(double (*one)(int), int n)
{
	static double took[256];

	for (int i = 0; i < n; i++)
		took[i] = one(i);
	qsort(took, n, sizeof(*took), by_size);
	return took[n / 2] / 1000;
}

static void row(int release_ms, uint32_t flags)
{
	int n = release_ms ? 5 : 200;

	memset(s, 0, sizeof(*s));
	s->task_socket = -1;
	s->open_flags = flags;
	s->release_ms = release_ms;
	start();
	double close_ms = median(one_close, n), exit_ms = median(one_exit, n > 20 ? 20 : n),
	       munmap_ms = median(one_munmap, n);

	printf("%-9s  %6d ms  %-4s  %8.3f  %8.3f  %8.3f\n", door == URING ? "io_uring" : "/dev/fuse", release_ms,
	       flags ? "yes" : "no", close_ms, munmap_ms, exit_ms);
	umount2(MNT, MNT_DETACH);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
}

void figures(void)
{
	printf("medians in ms (of 200, of 5 if RELEASE takes 300 ms; fork+open+exit+wait: of 20)\n");
	printf("door        RELEASE    flag     close    munmap      exit\n");
	for (door = CLASSIC; door <= URING; door++) {
		for (int ms = 0; ms <= 300; ms += 300) {
			row(ms, 0);
			row(ms, FOPEN_SYNC_RELEASE);
		}
	}
}

/* The requests of a fixed sequence of calls, without the flag: has to be the same on any kernel. */
void trace(void)
{
	char data[10000] = "data";
	pid_t child;

	s->open_flags = 0;
	s->refuse_sync = true;
	s->threads = 1;
	s->trace = true;
	start();
	int fd = open_file(0, O_RDWR), other = dup(fd);

	if (write(fd, data, sizeof(data)) != sizeof(data) || pread(fd, data, 100, 50000) != 100)
		fail("trace", 0, "read and write");
	close(fd);
	if (in_child(&child))
		_exit(0);
	end_of(child);
	close(other);
	/* RELEASE is asynchronous here: what comes next may overtake it, on any kernel. */
	EVENTUALLY(s->acked == 1);
	fd = create_file("new");
	fsync(fd);
	char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other = open_file(1, O_RDWR), 0);

	close(other);
	map[0] = 1;
	munmap(map, 4096);
	EVENTUALLY(s->acked == 2);
	close(fd);
	EVENTUALLY(s->acked == 3);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	umount2(MNT, MNT_DETACH);
}
