// SPDX-License-Identifier: GPL-2.0-only
/* Who is offered the flag. The server of these tests asks for it in any case, and must be ignored. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

static bool mountinfo_has(const char *word)
{
	char line[1024];
	bool found = false;
	FILE *f = fopen("/proc/self/mountinfo", "r");

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, MNT " ") && strstr(line, word))
			found = true;
	}
	if (f)
		fclose(f);
	return found;
}

static void expect_nobody_waits(void)
{
	EXPECT(!(s->offered & FUSE_SYNC_RELEASE));
	s->release_hold = true;
	close(open_file(0, O_RDWR));
	EXPECT(s->acked == 0);
	EXPECT(s->flushes == 1 && s->last_flushes == 0);
	s->release_hold = false;
	EVENTUALLY(s->acked == 1);
}

TEST(mount_option_withholds_the_flag_and_shows, ON_BOTH)
{
	mount_options = ",disable_sync_release";
	start();
	EXPECT(mountinfo_has("disable_sync_release"));
	expect_nobody_waits();
}

TEST(mount_without_the_option_does_not_show_it, ON_CLASSIC)
{
	start();
	EXPECT(s->offered & FUSE_SYNC_RELEASE);
	EXPECT(mountinfo_has("user_id=0"));
	EXPECT(!mountinfo_has("disable_sync_release"));
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail(path, errno, text);
	close(fd);
}

TEST(mount_of_another_user_namespace_is_not_offered_the_flag, ON_BOTH)
{
	mkdir(MNT, 0755);
	EXPECT(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
	put("/proc/self/setgroups", "deny");
	put("/proc/self/uid_map", "0 0 1");
	put("/proc/self/gid_map", "0 0 1");
	start();
	expect_nobody_waits();
}
