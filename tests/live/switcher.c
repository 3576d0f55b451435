/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program for a guest: two processes on one processor, the number of which is its argument, that take turns when they
 * are told to, and count how often one follows the other: each time the processor changes from one address space to the
 * other. Told by, and counting in, a page that is found from outside by how it begins. While nothing is to be done the
 * second one waits at a pipe, so that no turn goes without being counted.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct page {
    char magic[32];
    volatile uint64_t target; /* go on until this many turns were taken */
    volatile uint64_t turns;
    volatile uint64_t last;  /* who had the last one */
    volatile uint64_t rests; /* whether the second one waits at the pipe, or is about to */
};

static struct page *page;

static void count(uint64_t me)
{
    if (page->last != me) {
        page->last = me;
        page->turns++;
    }
}

static void first(int door)
{
    int told = 0;

    for (;;) {
        told = told && !page->rests; /* it was done with what there was before there was more */
        count(0);
        if (page->turns >= page->target) {
            told = 0;
            usleep(2000);
            continue;
        }
        if (!told)
            told = write(door, ".", 1) == 1;
        sched_yield();
    }
}

static void second(int door)
{
    char word;

    for (page->rests = 1; read(door, &word, 1) == 1; page->rests = 1) {
        page->rests = 0;
        do {
            count(1);
            sched_yield();
            count(1);
        } while (page->turns < page->target);
    }
}

int main(int number, char **words)
{
    int processor = number > 1 ? atoi(words[1]) : 0, doors[2], rest = open("/proc/sys/kernel/sched_rt_runtime_us", O_WRONLY);
    cpu_set_t set;

    if (rest >= 0 && write(rest, "-1", 2) == 2)
        close(rest);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    if (page == MAP_FAILED || pipe(doors) != 0 || sched_setaffinity(0, sizeof set, &set) != 0 ||
        sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 10}) != 0)
        return 1;
    /* Made here, so that the program's file does not begin a page in the same way. */
    snprintf(page->magic, sizeof page->magic, "%s: turns of vCPU %d", "switcher", processor);
    if (fork() != 0)
        first(doors[1]);
    else
        second(doors[0]);
}
