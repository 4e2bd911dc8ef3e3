// SPDX-License-Identifier: GPL-2.0-only
/* RELEASE is no background request, and a busy queue only takes its time. */
#define _GNU_SOURCE
#include "client.h"

#include <fcntl.h>
#include <pthread.h>

static void *close_it(void *fd)
{
	close((int)(long)fd);
	return NULL;
}

static void *read_it(void *fd)
{
	static __thread char data[4096];

	return (void *)(pread((int)(long)fd, data, sizeof(data), 0) == sizeof(data) ? 0L : 1L);
}

static pthread_t in_thread(void *(*run)(void *), int fd)
{
	pthread_t thread;

	pthread_create(&thread, NULL, run, (void *)(long)fd);
	return thread;
}

/* One READ of readahead, held by the server: with max_background 1 that is all there may be. */
static void hold_a_background_read(void)
{
	s->read_hold = true;
	int fd = open_file(0, O_RDONLY);

	EXPECT(readahead(fd, 0, MAX_WRITE) == 0);
	EVENTUALLY(s->reads >= 1);
}

TEST(slow_reads_do_not_starve_release, ON_BOTH)
{
	s->max_background = 1;
	s->init_flags = FUSE_ASYNC_READ;
	start();
	hold_a_background_read();
	close(open_file(1, O_RDWR));
	EXPECT(s->acked == 1);
	EXPECT(s->reads_done == 0);
	s->read_hold = false;
}

TEST(slow_reads_do_starve_release_without_the_flag, ON_CLASSIC)
{
	s->max_background = 1;
	s->init_flags = FUSE_ASYNC_READ;
	s->open_flags = 0;
	start();
	hold_a_background_read();
	close(open_file(1, O_RDWR));
	usleep(500000);
	EXPECT(s->releases == 0);
	s->read_hold = false;
	EVENTUALLY(s->acked == 1);
}

TEST(slow_releases_do_not_starve_reads, ON_BOTH)
{
	pthread_t closer[3];

	s->threads = 8;
	s->max_background = 1;
	s->init_flags = FUSE_ASYNC_READ;
	s->release_hold = true;
	start();
	for (int i = 0; i < 3; i++)
		closer[i] = in_thread(close_it, open_file(1 + i, O_RDWR));
	EVENTUALLY(s->releases == 3);
	int fd = open_file(9, O_RDONLY);
	void *result = (void *)1L;

	/* In another thread only so that a failure shows as one. */
	pthread_join(in_thread(read_it, fd), &result);
	EXPECT(result == NULL);
	EXPECT(s->acked == 0);
	s->release_hold = false;
	for (int i = 0; i < 3; i++)
		pthread_join(closer[i], NULL);
	EXPECT(s->acked == 3);
}

TEST(many_closers_at_once_all_wait, ON_BOTH)
{
	pthread_t closer[40];

	s->release_ms = 50;
	start();
	for (int i = 0; i < 40; i++)
		closer[i] = in_thread(close_it, open_file(i, O_RDWR));
	for (int i = 0; i < 40; i++)
		pthread_join(closer[i], NULL);
	EXPECT(s->acked == 40);
}

TEST(closers_pinned_to_a_busy_queue_make_progress, ON_URING)
{
	pid_t child[6];

	s->depth = 2;
	s->serial = true;
	s->release_ms = 100;
	start();
	for (int i = 0; i < 6; i++) {
		if (in_child(&child[i])) {
			pin_to_cpu(0);
			int fd = open_file(i, O_RDWR);
			int before = s->acked;

			close(fd);
			_exit(s->acked == before);
		}
	}
	for (int i = 0; i < 6; i++)
		EXPECT(end_of(child[i]) == 0);
	EXPECT(s->acked == 6 && s->releases == 6);
}
