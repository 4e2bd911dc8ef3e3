// SPDX-License-Identifier: GPL-2.0-only
/*
 * release_test: synchronous RELEASE, seen from a server and its clients. Needs root and a kernel with
 * the series.
 *
 *   release_test                   all tests, on both doors
 *   release_test NAME...           tests whose names contain one of these
 *   release_test --skip NAME...    all but these
 *   release_test --seconds N ...   time for one test (60)
 *   release_test --figures         how long close() and others take, with the flag and without
 *   release_test --trace           the requests of a fixed sequence of calls, as bytes
 */
#define _GNU_SOURCE
#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define SKIPPED 77

enum door door;
pid_t server;
const char *mount_options = "";
static bool failed;
static struct test *tests, **tests_end = &tests;
static int shared_fd;
void figures(void);
void trace(void);

void add_test(struct test *test)
{
	*tests_end = test;
	tests_end = &test->next;
}

void fail(const char *file, int line, const char *what)
{
	printf("# %s:%d: expected %s (acked %d, releases %d, flushes %d, last %d)\n", file, line, what,
	       s->acked, s->releases, s->flushes, s->last_flushes);
	fflush(stdout);
	failed = true;
}

void skip(const char *why)
{
	printf("# skipped: %s\n", why);
	fflush(stdout);
	_exit(SKIPPED);
}

long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void start(void)
{
	struct stat st;
	char options[256];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	mkdir(MNT, 0755);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0%s", fd, mount_options);
	if (fd < 0 || mount("ackfs-test", MNT, "fuse", MS_NOSUID | MS_NODEV, options)) {
		printf("# mount: %s\n", strerror(errno));
		_exit(1);
	}
	server = fork();
	if (server == 0)
		serve(fd, door);
	close(fd);
	if (s->task_socket >= 0)
		close(s->task_socket);
	if (stat(MNT, &st)) {
		printf("# stat: %s\n", strerror(errno));
		_exit(1);
	}
}

int open_file(int number, int flags)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), MNT "/f%d", number);
	fd = open(path, flags);
	if (fd < 0)
		fail(path, errno, "open");
	return fd;
}

int create_file(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), MNT "/%s", name);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	if (fd < 0)
		fail(path, errno, "create");
	return fd;
}

int warm_enosys_flush(void)
{
	s->flush_enosys = true;
	close(open_file(99, O_RDONLY));
	EVENTUALLY(s->acked == 1);
	return 1;
}

void set_exit_timeout(int seconds)
{
	FILE *f = fopen("/proc/sys/fs/fuse/sync_release_exit_timeout", "w");

	/* Stock kernels have neither the sysctl nor what it limits. */
	if (!f && errno == ENOENT)
		return;
	if (!f || fprintf(f, "%d", seconds) < 0 || fclose(f))
		fail("sync_release_exit_timeout", errno, "a sysctl");
}

void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity", cpu, "0");
}

bool in_child(pid_t *pid)
{
	fflush(stdout);
	*pid = fork();
	if (*pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return *pid == 0;
}

int end_of(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return status;
}

bool ended(pid_t pid, int ms)
{
	siginfo_t info;
	long until = now_ms() + ms;

	for (;;) {
		/* After the clock: whoever stands still between the two looks once more. */
		bool over = now_ms() >= until;

		info.si_pid = 0;
		if (waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
			return true;
		if (over)
			return false;
		usleep(2000);
	}
}

/* --- The run --------------------------------------------------------------------------------------- */

static void share(void)
{
	shared_fd = memfd_create("shared", 0);
	if (shared_fd < 0 || ftruncate(shared_fd, sizeof(*s)))
		exit(2);
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
	s->task_socket = -1;
	s->open_flags = FOPEN_SYNC_RELEASE;
}

/* For tests that exec: how the new program finds the counters of the old one. */
int shared_descriptor(void)
{
	return shared_fd;
}

static int run_in_this_process(struct test *t)
{
	setpgid(0, 0);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		perror("# mount namespace");
	share();
	set_exit_timeout(30);
	t->run();
	/* What every test leaves must be true of the protocol. */
	if (s->after_last)
		fail("protocol", s->after_last, "no FLUSH or WRITE after FUSE_FLUSH_LAST");
	if (s->flush_flags_other)
		fail("protocol", s->flush_flags_other, "no other bits in FLUSH");
	s->release_hold = s->read_hold = false;
	umount2(MNT, MNT_DETACH);
	return failed;
}

/* Where the tasks of a test hang, from their kernel stacks. */
static void show_stacks(pid_t group)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);
		char path[300], line[256];

		if (pid <= 0 || getpgid(pid) != group)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task", pid);
		DIR *tasks = opendir(path);
		struct dirent *task;

		while (tasks && (task = readdir(tasks))) {
			snprintf(path, sizeof(path), "/proc/%d/task/%d/stack", pid, atoi(task->d_name));
			FILE *f = fopen(path, "r");

			for (int i = 0; f && i < 12 && fgets(line, sizeof(line), f); i++)
				printf("# %d/%s %s", pid, task->d_name, line);
			if (f)
				fclose(f);
		}
		if (tasks)
			closedir(tasks);
	}
	if (proc)
		closedir(proc);
}

static int run(struct test *t, int seconds)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		status = run_in_this_process(t);
		fflush(stdout);
		_exit(status);
	}
	if (!ended(child, seconds * 1000)) {
		printf("# still running after %d s:\n", seconds);
		show_stacks(child);
		kill(-child, SIGKILL);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		return -1;
	}
	waitpid(child, &status, 0);
	kill(-child, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static bool chosen(const char *name, char **words, int n, bool skip_them)
{
	for (int i = 0; i < n; i++) {
		if (strstr(name, words[i]))
			return !skip_them;
	}
	return skip_them || n == 0;
}

int main(int argc, char **argv)
{
	int seconds = 60, passed = 0, failures = 0, skipped = 0, first = 1;
	bool skip_them = false;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3 && !strcmp(argv[1], "--was-acked")) {
		s = mmap(NULL, sizeof(*s), PROT_READ, MAP_SHARED, atoi(argv[2]), 0);
		return s->acked != 1;
	}
	for (; first < argc && argv[first][0] == '-'; first++) {
		if (!strcmp(argv[first], "--skip")) {
			skip_them = true;
		} else if (!strcmp(argv[first], "--seconds") && first + 1 < argc) {
			seconds = atoi(argv[++first]);
		} else if (!strcmp(argv[first], "--figures") || !strcmp(argv[first], "--trace")) {
			unshare(CLONE_NEWNS);
			share();
			(!strcmp(argv[first], "--trace") ? trace : figures)();
			return 0;
		}
	}
	for (int at = CLASSIC; at <= URING; at++) {
		for (struct test *t = tests; t; t = t->next) {
			char name[160];

			snprintf(name, sizeof(name), "%s (%s)", t->name, at == URING ? "io_uring" : "/dev/fuse");
			if (!(t->doors & (at == URING ? ON_URING : ON_BOTH & ~ON_URING)) ||
			    !chosen(name, argv + first, argc - first, skip_them))
				continue;
			door = at;
			long began = now_ms();
			int result = run(t, seconds);
			long took = now_ms() - began;

			if (result == 0)
				passed++;
			else if (result == SKIPPED)
				skipped++;
			else
				failures++;
			printf("%s - %s%s # %ld ms\n", result == 0 || result == SKIPPED ? "ok" : "not ok", name,
			       result == SKIPPED ? " # SKIP" : result < 0 ? " # HUNG" : "", took);
		}
	}
	printf("%d passed, %d failed", passed, failures);
	printf(skipped ? ", %d skipped\n" : "\n", skipped);
	return failures != 0;
}
