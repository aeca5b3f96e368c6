/* The progress line on stderr, and signals.
 *
 * On a terminal one line is drawn over and over, at most ten times a second; elsewhere a line appears every ten
 * seconds and at the end of each stage. A signal sets a flag, which the progress callback passes on: the library then
 * saves and returns. A second SIGINT leaves at once.
 *
 * There are no signal handlers. oneDNN's generated code keeps data below the stack pointer, and a handler's frame on
 * that stack destroys it (2.6.3: a heap error soon after). So SIGINT and SIGTERM are blocked in every thread, and one
 * thread that computes nothing waits for them. */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/cli/cli.h"

static atomic_int interrupted; /* the signal's number */

static struct {
    bool terminal, open;
    const char *stage, *finished; /* running; the last one that ended */
    double started, drawn;
    int64_t first_done;
} bar;

static void *wait_for_signals(void *argument)
{
    const sigset_t *signals = argument;
    for (int number; sigwait(signals, &number) == 0; interrupted = number)
        if (interrupted && number == SIGINT)
            _exit(EXIT_INTERRUPTED);
    return NULL;
}

void cli_catch_signals(void)
{
    static sigset_t signals;
    pthread_t thread;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    signal(SIGINT, SIG_DFL); /* a shell that starts a command in the background lets it ignore SIGINT */
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* threads that are started later inherit this */
    if (pthread_create(&thread, NULL, wait_for_signals, &signals) == 0)
        pthread_detach(thread);
    else
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe and a file-size limit are write errors like any other */
    signal(SIGXFSZ, SIG_IGN);
}

int cli_is_interrupted(void)
{
    return interrupted;
}

int cli_interrupt_code(void)
{
    return interrupted == SIGTERM ? EXIT_TERMINATED : EXIT_INTERRUPTED;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_progress_end(void)
{
    if (bar.open)
        fputc('\n', stderr);
    bar.open = false;
}

static void put_duration(double seconds)
{
    if (!(seconds >= 0) || seconds > 8.64e7)
        fprintf(stderr, "--:--");
    else if (seconds >= 3600)
        fprintf(stderr, "%d:%02d:%02d", (int)seconds / 3600, (int)seconds / 60 % 60, (int)seconds % 60);
    else
        fprintf(stderr, "%d:%02d", (int)seconds / 60, (int)seconds % 60);
}

static void draw(const vl_progress *p, double time)
{
    enum { WIDTH = 24 };
    double share = p->total > 0 ? (double)p->done / (double)p->total : 1, elapsed = time - bar.started;
    double rate = elapsed > 0 ? (double)(p->done - bar.first_done) / elapsed : 0;
    int filled = (int)(share * WIDTH);
    fprintf(stderr, "%s%-6s [", bar.terminal ? "\r" : "", p->stage);
    for (int i = 0; i < WIDTH; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %3.0f %% %lld/%lld %s", 100 * share, (long long)p->done, (long long)p->total, p->unit);
    if (rate > 0)
        fprintf(stderr, ", %.*f/s", rate < 10 ? 1 : 0, rate);
    if (!isnan(p->kl))
        fprintf(stderr, ", KL %.3f", p->kl);
    fprintf(stderr, p->done < p->total ? ", ETA " : ", took ");
    put_duration(p->done < p->total ? (rate > 0 ? (double)(p->total - p->done) / rate : -1) : elapsed);
    fprintf(stderr, bar.terminal ? "   " : "\n");
    bar.open = bar.terminal;
    bar.drawn = time;
}

static int on_progress(void *user, const vl_progress *p)
{
    const cli_common *common = user;
    double time = now();
    bool finished = p->done >= p->total;
    if (finished && bar.finished && !strcmp(bar.finished, p->stage))
        return interrupted != 0; /* its end was drawn */
    if (!bar.stage || strcmp(bar.stage, p->stage) != 0) {
        bar.finished = NULL;
        bar.stage = p->stage;
        bar.started = time;
        bar.first_done = p->done;
        bar.drawn = bar.terminal ? 0 : time;
    }
    if (!common->quiet && (finished || time - bar.drawn >= (bar.terminal ? 0.1 : 10)))
        draw(p, time);
    if (finished) {
        cli_progress_end();
        bar.finished = bar.stage;
        bar.stage = NULL;
    }
    return interrupted != 0;
}

static void on_message(void *user, int is_warning, const char *line)
{
    const cli_common *common = user;
    if (common->quiet && !is_warning)
        return;
    if (is_warning && cli_team_is_silent())
        cli_team_aside("warning: ", line);
    cli_progress_end();
    fprintf(stderr, "%s%s\n", is_warning ? "warning: " : "", line);
}

const vl_observer *cli_observer(const cli_common *common)
{
    static vl_observer observer;
    bar.terminal = isatty(STDERR_FILENO);
    observer = (vl_observer){on_progress, on_message, (void *)(uintptr_t)common};
    return &observer;
}
