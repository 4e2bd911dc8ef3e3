/* SPDX-License-Identifier: GPL-2.0-only */
/* What a test is made of: a registry, a mounted server, expectations, and a few ways to wait. */
#ifndef CLIENT_H
#define CLIENT_H

#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define ON_CLASSIC 1
#define ON_URING 2
#define ON_BOTH 3

struct test {
	const char *name;
	void (*run)(void);
	int doors;
	struct test *next;
};
void add_test(struct test *test);

/* TEST(claim, doors) { ... }: runs in a process and a mount namespace of its own, once on each door. */
#define TEST(claim, on)                                                                    \
	static void claim(void);                                                           \
	static struct test test_##claim = { #claim, claim, on, NULL };                     \
	__attribute__((constructor)) static void add_##claim(void) { add_test(&test_##claim); } \
	static void claim(void)

extern enum door door;
extern pid_t server;
extern const char *mount_options;
#define MNT "/tmp/ackfs-mnt"

/* Mounts and starts the server that `s` describes, and returns when the mount answers. */
void start(void);
void skip(const char *why) __attribute__((noreturn));
int open_file(int number, int flags);
int create_file(const char *name);
int warm_enosys_flush(void);	/* makes the kernel learn that the server has no FLUSH; 1 handle used */
void set_exit_timeout(int seconds);
void pin_to_cpu(int cpu);
long now_ms(void);

/* Runs the body in a child: if (in_child(&pid)) { ...; _exit(0); } */
bool in_child(pid_t *pid);
int end_of(pid_t pid);	/* waits; 0 if it exited with 0, else what waitpid() said */
bool ended(pid_t pid, int ms);	/* did it end within ms? leaves it to end_of() */

void fail(const char *file, int line, const char *what);
#define EXPECT(condition)                                    \
	do {                                                 \
		if (!(condition))                            \
			fail(__FILE__, __LINE__, #condition); \
	} while (0)
/* For what happens in nobody's context: polls for up to 10 s. */
#define EVENTUALLY(condition)                                               \
	do {                                                                \
		long until_ = now_ms() + 10000;                             \
		while (!(condition) && now_ms() < until_)                   \
			usleep(2000);                                       \
		if (!(condition))                                           \
			fail(__FILE__, __LINE__, "eventually " #condition); \
	} while (0)

#endif
