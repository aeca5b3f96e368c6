/* Runs a fuzz target over files, with an ordinary compiler: each corpus is a test. Every input is also tried cut short
 * and with single bytes changed, which is where readers of lengths and offsets go wrong.
 *
 * --isolated FILE ...: each variant in a process of its own, for files that HDF5 reads. What kills that process is ours
 * unless the trace begins inside libhdf5 (docs/reference/limits.md lists such crashes). */
#include <execinfo.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_file.h"

enum { MAX_INPUT = 1 << 20, CUTS = 64, FLIPS = 256 };

static bool isolated;
static int in_hdf5;

#ifdef __SANITIZE_ADDRESS__ /* has a trace of its own */
static void trace_crashes(void)
{
}
#else
/* A trace from the frame that was interrupted on. */
static void print_trace(int signal_number)
{
    enum { OWN = 2 }; /* this function and the signal's */
    void *frames[8];
    int n = backtrace(frames, 8);
    backtrace_symbols_fd(frames + OWN, n - OWN, STDERR_FILENO);
    _exit(signal_number);
}

static void trace_crashes(void)
{
    signal(SIGSEGV, print_trace);
    signal(SIGBUS, print_trace);
    signal(SIGABRT, print_trace);
}
#endif

/* Whether the innermost frame of the trace in `log`, the C library's and the sanitizer's apart, is one of libhdf5;
 * shows the trace where it is not. */
static bool crashed_in_hdf5(FILE *log)
{
    char line[1024];
    bool found = false, seen = false;
    rewind(log);
    while (!seen && fgets(line, sizeof line, log)) {
        bool frame = strstr(line, "+0x") || strstr(line, "    #");
        seen = frame && !strstr(line, "libc.so") && !strstr(line, "sanitizer");
        found = seen && strstr(line, "libhdf5");
    }
    rewind(log);
    while (!found && fgets(line, sizeof line, log))
        fputs(line, stderr);
    return found;
}

static void try_isolated(const uint8_t *data, size_t size)
{
    FILE *log = tmpfile();
    fflush(NULL);
    pid_t child = log ? fork() : -1;
    if (child == 0) {
        dup2(fileno(log), STDERR_FILENO);
        trace_crashes();
        LLVMFuzzerTestOneInput(data, size);
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("a process for one input");
        exit(1);
    }
    if (status != 0 && !crashed_in_hdf5(log)) {
        fprintf(stderr, "an input of %zu bytes ended its process with status %#x\n", size, (unsigned)status);
        exit(1);
    }
    in_hdf5 += status != 0;
    fclose(log);
}

static void try_variant(const uint8_t *data, size_t size)
{
    if (isolated)
        try_isolated(data, size);
    else
        LLVMFuzzerTestOneInput(data, size);
}

static void try_input(uint8_t *data, size_t size)
{
    try_variant(data, size);
    for (size_t i = 0; i < CUTS; i++)
        try_variant(data, size * i / CUTS);
    /* spread over the whole, dense at the front, where headers are */
    for (size_t i = 0; i < FLIPS && size > 0; i++) {
        size_t at = i < FLIPS / 2 ? i % size : size * (i - FLIPS / 2) / (FLIPS / 2);
        uint8_t old = data[at];
        data[at] = (uint8_t)(old ^ (i % 2 ? 0xff : 1u << i % 8));
        try_variant(data, size);
        data[at] = old;
    }
}

int main(int argc, char **argv)
{
    static uint8_t data[MAX_INPUT];
    isolated = argc > 1 && strcmp(argv[1], "--isolated") == 0;
    void *frame;
    backtrace(&frame, 1); /* loads what it needs, which a handler could not */
    int first = isolated ? 2 : 1;
    for (int i = first; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) {
            perror(argv[i]);
            return 1;
        }
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        try_input(data, size);
    }
    printf("%d inputs, %d variants of each; %d crashes inside libhdf5\n", argc - first, 1 + CUTS + FLIPS, in_hdf5);
    return argc > first ? 0 : 1;
}
