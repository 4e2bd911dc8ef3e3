// SPDX-License-Identifier: GPL-2.0-only
/* A closer can be freed: by a signal that kills it, by time when it exits, by the end of the connection,
 * for a suspend. The RELEASE goes on in each case. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define DEFAULT_LIMIT 30

/* A child that hangs in close(), its RELEASE in the hands of the server. */
static pid_t hanging_closer(void)
{
	pid_t child;

	s->release_hold = true;
	int before = s->releases;

	if (in_child(&child)) {
		close(open_file(0, O_RDWR));
		_exit(0);
	}
	EVENTUALLY(s->releases == before + 1);
	EXPECT(!ended(child, 100));
	return child;
}

TEST(killed_closer_is_free_at_once_and_release_goes_on, ON_BOTH)
{
	start();
	pid_t child = hanging_closer();

	kill(child, SIGKILL);
	EXPECT(ended(child, 15000));
	EXPECT(end_of(child) == SIGKILL);
	EXPECT(s->acked == 0);
	EXPECT(s->interrupts == 0);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
	EXPECT(s->releases == 1);
}

TEST(killed_closer_of_several_threads_is_free_at_once, ON_BOTH)
{
	start();
	pid_t child = hanging_closer();

	kill(child, SIGINT);	/* fatal by default, like ^C */
	EXPECT(ended(child, 15000));
	EXPECT(end_of(child) == SIGINT);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
}

static atomic_int caught;
static void catch(int signal)
{
	(void)signal;
	caught++;
}

TEST(signal_that_does_not_kill_does_not_end_the_wait, ON_BOTH)
{
	pid_t child;

	s->release_hold = true;
	start();
	if (in_child(&child)) {
		signal(SIGUSR1, catch);
		int fd = open_file(0, O_RDWR);

		if (close(fd))
			_exit(2);
		_exit(s->acked != 1 || caught != 1);
	}
	EVENTUALLY(s->releases == 1);
	kill(child, SIGUSR1);
	EXPECT(!ended(child, 300));
	EXPECT(s->interrupts == 0);
	s->release_hold = false;
	EXPECT(end_of(child) == 0);
}

static pid_t hanging_exit(void)
{
	pid_t child;

	s->release_hold = true;
	if (in_child(&child)) {
		open_file(0, O_RDWR);
		_exit(0);
	}
	EVENTUALLY(s->releases == 1);
	return child;
}

TEST(exit_waits_no_longer_than_the_limit, ON_BOTH)
{
	set_exit_timeout(4);
	start();
	long began = now_ms();
	pid_t child = hanging_exit();

	/* Without a limit it would wait for ever; a slow machine may take its time to see the end. */
	EXPECT(ended(child, 15000));
	EXPECT(now_ms() - began >= 3900);
	EXPECT(end_of(child) == 0);
	EXPECT(s->acked == 0);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
}

TEST(exit_does_not_wait_with_a_limit_of_zero, ON_BOTH)
{
	set_exit_timeout(0);
	start();
	pid_t child = hanging_exit();

	EXPECT(ended(child, 15000));
	EXPECT(end_of(child) == 0);
	EXPECT(s->acked == 0);
}

TEST(limit_of_exit_is_30_s_and_has_bounds, ON_CLASSIC)
{
	int fd = open("/proc/sys/fs/fuse/sync_release_exit_timeout", O_RDWR);
	char text[16] = "";

	EXPECT(read(fd, text, sizeof(text)) > 0 && atoi(text) == DEFAULT_LIMIT);
	EXPECT(pwrite(fd, "86401", 5, 0) < 0 && errno == EINVAL);
	EXPECT(pwrite(fd, "86400", 5, 0) == 5);
	close(fd);
	set_exit_timeout(DEFAULT_LIMIT);
}

TEST(killed_holder_does_not_wait, ON_BOTH)
{
	pid_t child;

	s->release_hold = true;
	start();
	if (in_child(&child)) {
		open_file(0, O_RDWR);
		pause();
	}
	EVENTUALLY(s->opens == 1);
	usleep(50000);
	kill(child, SIGKILL);
	EXPECT(ended(child, 15000));
	end_of(child);
	EVENTUALLY(s->releases == 1);
	EXPECT(s->acked == 0);
}

TEST(crashed_holder_does_not_wait, ON_BOTH)
{
	pid_t child;

	s->release_hold = true;
	start();
	if (in_child(&child)) {
		open_file(0, O_RDWR);
		raise(SIGSEGV);
	}
	EXPECT(ended(child, 15000));
	EXPECT((end_of(child) & 0x7f) == SIGSEGV);
	EXPECT(s->acked == 0);
}

TEST(death_of_the_server_frees_closer_and_exit, ON_BOTH)
{
	pid_t exiting;

	start();
	pid_t child = hanging_closer();

	if (in_child(&exiting)) {
		open_file(1, O_RDWR);
		_exit(0);
	}
	EVENTUALLY(s->releases == 2);
	kill(server, SIGKILL);
	EXPECT(ended(child, 15000));
	EXPECT(ended(exiting, 15000));
	EXPECT(s->acked == 0);
}

TEST(abort_of_the_connection_frees_the_closer, ON_BOTH)
{
	struct stat st;
	char path[80];

	start();
	stat(MNT, &st);
	pid_t child = hanging_closer();

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", minor(st.st_dev));
	FILE *f = fopen(path, "w");

	EXPECT(f && fprintf(f, "1") == 1 && fclose(f) == 0);
	EXPECT(ended(child, 15000));
	EXPECT(s->acked == 0);
}

TEST(forced_umount_frees_the_closer, ON_BOTH)
{
	start();
	pid_t child = hanging_closer();

	umount2(MNT, MNT_FORCE);
	EXPECT(ended(child, 15000));
	EXPECT(s->acked == 0);
}

TEST(umount_after_close_is_not_busy, ON_BOTH)
{
	start();
	for (int i = 0; i < 20; i++)
		close(open_file(i, O_RDWR));
	EXPECT(s->acked == 20);
	EXPECT(umount2(MNT, 0) == 0);
}

static bool put(const char *path, const char *word)
{
	FILE *f = fopen(path, "w");

	if (!f)
		return false;
	bool ok = fprintf(f, "%s", word) > 0;

	return fclose(f) == 0 && ok;
}

TEST(waiting_closer_and_exit_do_not_hold_up_suspend, ON_BOTH)
{
	pid_t exiting;

	if (!put("/sys/power/pm_test", "freezer"))
		skip("no /sys/power/pm_test in this kernel");
	put("/sys/module/suspend/parameters/pm_test_delay", "1");
	start();
	pid_t child = hanging_closer();

	if (in_child(&exiting)) {
		open_file(1, O_RDWR);
		_exit(0);
	}
	EVENTUALLY(s->releases == 2);
	/* Freezes every task, then thaws them: fails if one of them cannot be frozen. */
	EXPECT(put("/sys/power/state", "freeze"));
	EXPECT(!ended(child, 100) && !ended(exiting, 100));
	s->release_hold = false;
	EXPECT(end_of(child) == 0 && end_of(exiting) == 0);
	EXPECT(s->acked == 2);
	put("/sys/power/pm_test", "none");
}
