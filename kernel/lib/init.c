// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process of the test machine. It lays out the file systems, switches on what tests need,
 * runs the command of /boot/cmd as its child, reaps what is left behind, tells how the command ended
 * and resets the machine. Built static by kernel/boot.
 *
 * ttyS0 is the kernel's, and carries our last word: "ackfs-boot: exit N".
 * ttyS1 is the command's standard output and standard error, byte for byte.
 *
 * /boot/cmd holds the working directory, then the command's arguments, then an empty string, then its
 * environment, each ended by NUL. /boot/modules, if it is there, holds one module file a line, which
 * are loaded first.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define WORDS_MAX 512
static char text[256 * 1024];
static char *argv_of_cmd[WORDS_MAX], *env_of_cmd[WORDS_MAX];

static void say_exit(int status)
{
	printf("\nackfs-boot: exit %d\n", status);
	fflush(stdout);
	tcdrain(1);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void die(const char *what)
{
	printf("ackfs-boot: %s: %s\n", what, strerror(errno));
	say_exit(125);
}

/* Where kernel/boot has put files, the initramfs stays in sight: it is memory as well. */
static int has_files(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int found = 0;

	while (dir && (entry = readdir(dir)))
		found |= entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return found;
}

static void mount_at(const char *type, const char *at, const char *options)
{
	mkdir(at, 0755);
	if (!strcmp(type, "tmpfs") && has_files(at))
		return;
	if (mount(type, at, type, 0, options) && errno != EBUSY)
		printf("ackfs-boot: %s at %s: %s\n", type, at, strerror(errno));
}

static void write_to(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		printf("ackfs-boot: %s: %s\n", path, strerror(errno));
	close(fd);
}

static void load_modules(void)
{
	char path[512];
	FILE *list = fopen("/boot/modules", "r");

	while (list && fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = 0;
		int fd = open(path, O_RDONLY);

		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			die(path);
		close(fd);
	}
	if (list)
		fclose(list);
}

static void loopback_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo))
		printf("ackfs-boot: loopback: %s\n", strerror(errno));
	close(fd);
}

static const char *read_cmd(void)
{
	int fd = open("/boot/cmd", O_RDONLY), words = 0;
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	char **list = argv_of_cmd;

	if (len <= 0)
		die("/boot/cmd");
	close(fd);
	char *cwd = text;

	for (char *word = text + strlen(text) + 1; word < text + len; word += strlen(word) + 1) {
		if (!*word && list == argv_of_cmd) {
			list = env_of_cmd;
			words = 0;
		} else if (words < WORDS_MAX - 1) {
			list[words++] = word;
		}
	}
	return cwd;
}

static int open_output(void)
{
	struct termios raw;
	int fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY);

	if (fd < 0)
		die("/dev/ttyS1");
	tcgetattr(fd, &raw);
	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	raw.c_cflag |= CLOCAL;
	tcsetattr(fd, TCSANOW, &raw);
	return fd;
}

int main(void)
{
	int console, out, status, code = 125;

	mount_at("devtmpfs", "/dev", NULL);
	console = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
	for (int fd = 0; console >= 0 && fd < 3; fd++)
		dup2(console, fd);
	mount_at("proc", "/proc", NULL);
	mount_at("sysfs", "/sys", NULL);
	mount_at("tmpfs", "/tmp", "mode=1777");
	mount_at("tmpfs", "/run", "mode=755");
	mount_at("tmpfs", "/dev/shm", "mode=1777");
	load_modules();
	if (access("/sys/fs/fuse/connections", F_OK) == 0)
		mount_at("fusectl", "/sys/fs/fuse/connections", NULL);
	write_to("/sys/module/fuse/parameters/enable_uring", "Y");
	write_to("/sys/module/ackfs_fuse/parameters/enable_uring", "Y");
	if (sethostname("ackfs-test", 10))
		perror("ackfs-boot: hostname");
	loopback_up();
	/* As a service manager has it; the kernel's own limit is 4096. */
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 1024, 524288 });

	const char *cwd = read_cmd();

	out = open_output();
	pid_t child = fork();

	if (child == 0) {
		int null = open("/dev/null", O_RDONLY);

		setsid();
		dup2(null, 0);
		dup2(out, 1);
		dup2(out, 2);
		if (null > 2)
			close(null);
		close(out);
		if (chdir(cwd) && chdir("/"))
			_exit(126);
		execvpe(argv_of_cmd[0], argv_of_cmd, env_of_cmd);
		dprintf(2, "ackfs-boot: %s: %s\n", argv_of_cmd[0], strerror(errno));
		_exit(127);
	}
	for (;;) {
		pid_t gone = wait(&status);

		if (gone == child)
			break;
		if (gone < 0 && errno != EINTR)
			die("wait");
	}
	code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	tcdrain(out);
	/* The UART has sent when its holding register is empty; QEMU needs no more than that. */
	usleep(20000);
	say_exit(code);
}
