// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints the rate of this machine's time stamp counter in kHz. QEMU's translation hands the counter to
 * the guest as it is, and the guest has nothing to measure it against that keeps time on a busy host;
 * untold, it counts time in timer ticks of 4 ms.
 */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

int main(void)
{
	struct timespec begin, end, nap = { 0, 50000000 };

	clock_gettime(CLOCK_MONOTONIC, &begin);
	unsigned long from = __rdtsc();

	nanosleep(&nap, NULL);
	unsigned long to = __rdtsc();

	clock_gettime(CLOCK_MONOTONIC, &end);
	double seconds = (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9;

	printf("%.0f\n", (to - from) / seconds / 1000);
	return 0;
}
