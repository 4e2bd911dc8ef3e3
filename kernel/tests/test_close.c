// SPDX-License-Identifier: GPL-2.0-only
/* Every way to give up a file waits for RELEASE, and only the one that gives it up for good. */
#define _GNU_SOURCE
#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

int shared_descriptor(void);

TEST(flag_is_offered_and_close_waits, ON_BOTH)
{
	s->release_ms = 300;
	start();
	EXPECT(s->offered & FUSE_SYNC_RELEASE);
	int fd = open_file(0, O_RDWR);

	EXPECT(s->acked == 0);
	EXPECT(close(fd) == 0);
	EXPECT(s->acked == 1);
	EXPECT(s->releases == 1);
}

TEST(read_only_file_waits_too, ON_BOTH)
{
	s->release_ms = 300;
	start();
	close(open_file(0, O_RDONLY));
	EXPECT(s->acked == 1);
}

TEST(created_file_waits, ON_BOTH)
{
	s->release_ms = 300;
	start();
	close(create_file("new"));
	EXPECT(s->acked == 1);
	EXPECT(s->last_flushes == 1);
}

TEST(without_open_flag_nobody_waits, ON_BOTH)
{
	s->release_hold = true;
	s->open_flags = 0;
	start();
	int fd = open_file(0, O_RDWR);

	close(fd);
	EXPECT(s->acked == 0);
	s->release_hold = false;
	EXPECT(s->flushes == 1);
	EXPECT(s->last_flushes == 0);
	EVENTUALLY(s->acked == 1);
}

TEST(without_negotiation_nobody_waits, ON_BOTH)
{
	s->release_hold = true;
	s->refuse_sync = true;
	start();
	close(open_file(0, O_RDWR));
	EXPECT(s->acked == 0);
	s->release_hold = false;
	EXPECT(s->last_flushes == 0);
	EVENTUALLY(s->acked == 1);
}

TEST(only_the_last_of_duplicates_waits, ON_BOTH)
{
	s->release_ms = 300;
	start();
	int fd = open_file(0, O_RDWR), other = dup(fd);

	close(fd);
	EXPECT(s->releases == 0);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	close(other);
	EXPECT(s->acked == 1);
	EXPECT(s->flushes == 2 && s->last_flushes == 1);
}

TEST(dup2_over_the_file_waits, ON_BOTH)
{
	s->release_ms = 300;
	start();
	int fd = open_file(0, O_RDWR);

	EXPECT(dup2(0, fd) == fd);
	EXPECT(s->acked == 1);
	EXPECT(s->last_flushes == 1);
}

TEST(close_range_waits, ON_BOTH)
{
	s->release_ms = 100;
	start();
	int a = open_file(0, O_RDWR), b = open_file(1, O_RDWR);

	EXPECT(syscall(SYS_close_range, a, b, 0) == 0);
	EXPECT(s->acked == 2);
	EXPECT(s->last_flushes == 2);
}

TEST(exit_waits, ON_BOTH)
{
	pid_t child;

	s->release_ms = 300;
	start();
	if (in_child(&child)) {
		open_file(0, O_RDWR);
		_exit(0);
	}
	EXPECT(end_of(child) == 0);
	EXPECT(s->acked == 1);
	EXPECT(s->last_flushes == 1);
}

static void *sleep_for_ever(void *unused)
{
	pause();
	return unused;
}

TEST(exit_of_a_threaded_process_waits, ON_BOTH)
{
	pid_t child;

	s->release_ms = 300;
	start();
	if (in_child(&child)) {
		pthread_t thread;

		pthread_create(&thread, NULL, sleep_for_ever, NULL);
		open_file(0, O_RDWR);
		exit(0);
	}
	EXPECT(end_of(child) == 0);
	EXPECT(s->acked == 1);
}

TEST(exec_waits_for_close_on_exec, ON_BOTH)
{
	pid_t child;
	char shared[16];

	s->release_ms = 300;
	start();
	if (in_child(&child)) {
		open_file(0, O_RDWR | O_CLOEXEC);
		snprintf(shared, sizeof(shared), "%d", shared_descriptor());
		execl("/proc/self/exe", "release_test", "--was-acked", shared, NULL);
		_exit(2);
	}
	EXPECT(end_of(child) == 0);
	EXPECT(s->last_flushes == 1);
}

TEST(child_that_closes_last_waits, ON_BOTH)
{
	pid_t child;

	s->release_ms = 300;
	start();
	int fd = open_file(0, O_RDWR), gate[2];

	if (pipe(gate))
		return;
	if (in_child(&child)) {
		char byte;

		close(gate[1]);
		if (read(gate[0], &byte, 1) != 0)
			_exit(2);
		close(fd);
		_exit(s->acked != 1);
	}
	close(fd);
	EXPECT(s->releases == 0);
	EXPECT(s->last_flushes == 0);
	close(gate[1]);
	EXPECT(end_of(child) == 0);
	EXPECT(s->last_flushes == 1);
}

TEST(parent_that_closes_last_waits, ON_BOTH)
{
	pid_t child;

	s->release_ms = 300;
	start();
	int fd = open_file(0, O_RDWR);

	if (in_child(&child))
		_exit(0);
	EXPECT(end_of(child) == 0);
	EXPECT(s->releases == 0);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	close(fd);
	EXPECT(s->acked == 1);
	EXPECT(s->last_flushes == 1);
}

TEST(shell_redirection_is_one_last_flush, ON_BOTH)
{
	s->release_ms = 100;
	start();
	EXPECT(system("(echo a; (echo b); /bin/echo c) >" MNT "/out") == 0);
	EXPECT(s->acked == 1);
	EXPECT(s->flushes > 1);
	EXPECT(s->last_flushes == 1);
}

TEST(unmapping_waits_and_its_stores_come_first, ON_BOTH)
{
	/* Long enough for who does not wait to be seen, on a machine that stands still in between. */
	s->release_ms = 2000;
	start();
	int fd = open_file(0, O_RDWR);
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	EXPECT(map != MAP_FAILED);
	close(fd);
	EXPECT(s->releases == 0);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	strcpy(map, "stored after close");
	munmap(map, 8192);
	EXPECT(s->acked == 1);
	EXPECT(s->writes >= 1);
	EXPECT(s->writes_at_release == s->writes);
}

TEST(writeback_comes_before_release, ON_BOTH)
{
	static char data[300 * 1024];

	s->release_ms = 100;
	s->init_flags = FUSE_WRITEBACK_CACHE;
	start();
	int fd = open_file(0, O_RDWR);
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	EXPECT(write(fd, data, sizeof(data)) == sizeof(data));
	EXPECT(s->writes == 0);
	close(fd);
	EXPECT(s->writes >= 1);
	map[0] = 'x';
	munmap(map, 8192);
	EXPECT(s->acked == 1);
	EXPECT(s->writes_at_release == s->writes);
}

static void *let_reads_go(void *unused)
{
	usleep(300000);
	s->read_hold = false;
	return unused;
}

TEST(readahead_in_flight_is_waited_for, ON_BOTH)
{
	pthread_t thread;

	s->init_flags = FUSE_ASYNC_READ;
	start();
	int used = warm_enosys_flush();
	int fd = open_file(0, O_RDONLY);

	s->read_hold = true;
	EXPECT(readahead(fd, 0, MAX_WRITE) == 0);
	EVENTUALLY(s->reads > 0);
	EXPECT(s->reads_done == 0);
	pthread_create(&thread, NULL, let_reads_go, NULL);
	close(fd);
	EXPECT(s->reads_done == s->reads);
	EXPECT(s->acked == used + 1);
	EXPECT(s->reads_open_at_release == 0);
	pthread_join(thread, NULL);
}

/* --- Two at once ----------------------------------------------------------------------------------- */

static pthread_barrier_t together;
struct closer {
	int fd, handle, acked;
};

static void *close_together(void *arg)
{
	struct closer *c = arg;

	pthread_barrier_wait(&together);
	close(c->fd);
	c->acked = s->handle[c->handle].acked;
	return NULL;
}

TEST(two_threads_that_close_two_files_both_wait, ON_BOTH)
{
	s->release_ms = 30;
	start();
	pthread_barrier_init(&together, NULL, 2);
	for (int round = 0; round < 20; round++) {
		pthread_t thread;
		struct closer a = { .handle = 2 * round }, b = { .handle = 2 * round + 1 };

		a.fd = open_file(0, O_RDWR);
		b.fd = open_file(1, O_RDWR);
		pthread_create(&thread, NULL, close_together, &a);
		close_together(&b);
		pthread_join(thread, NULL);
		EXPECT(a.acked == 1 && b.acked == 1);
	}
}

TEST(two_threads_that_close_duplicates_are_both_right, ON_BOTH)
{
	s->release_ms = 30;
	start();
	pthread_barrier_init(&together, NULL, 2);
	for (int round = 0; round < 40; round++) {
		pthread_t thread;
		struct closer a = { .handle = round }, b = { .handle = round };

		a.fd = open_file(0, O_RDWR);
		b.fd = dup(a.fd);
		pthread_create(&thread, NULL, close_together, &a);
		close_together(&b);
		pthread_join(thread, NULL);
		/* Whichever came last has waited, and it cannot have been neither. */
		EXPECT(s->handle[round].acked == 1);
		EXPECT(s->handle[round].last_flushes <= 1);
	}
}

/* --- What is as before ------------------------------------------------------------------------------ */

TEST(directories_do_not_wait, ON_BOTH)
{
	s->release_hold = true;
	start();
	DIR *dir = opendir(MNT);

	EXPECT(dir != NULL);
	closedir(dir);
	EXPECT(s->dir_acked == 0);
	s->release_hold = false;
	EVENTUALLY(s->dir_acked == 1);
}

TEST(server_without_open_has_no_release, ON_BOTH)
{
	s->open_enosys = true;
	start();
	close(open_file(0, O_RDWR));
	close(open_file(0, O_RDWR));
	EXPECT(s->releases == 0);
	EXPECT(s->last_flushes == 0);
}
