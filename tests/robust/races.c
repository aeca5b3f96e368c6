/* What ThreadSanitizer must see, and what it must not: a check of the build itself (races.sh).
 *
 * races sound | openmp | threads */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { N = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int shared;

/* OpenMP's barrier is what makes the second loop, and the sum, sound. */
static long sound_loops(void)
{
    static long values[N], turned[N];
    long sum = 0;
#pragma omp parallel for num_threads(4) schedule(static)
    for (int i = 0; i < N; i++)
        values[i] = i;
#pragma omp parallel for num_threads(4) schedule(static)
    for (int i = 0; i < N; i++)
        turned[i] = values[N - 1 - i];
    for (int i = 0; i < N; i++)
        sum += turned[i];
    return sum;
}

static void racing_loop(void)
{
#pragma omp parallel for num_threads(4) schedule(static)
    for (int i = 0; i < N; i++)
        shared += i;
}

static void *add(void *locked)
{
    for (int i = 0; i < N; i++) {
        if (locked)
            pthread_mutex_lock(&lock);
        shared++;
        if (locked)
            pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void two_threads(void *locked)
{
    pthread_t other;
    if (pthread_create(&other, NULL, add, locked) != 0)
        return;
    add(locked);
    pthread_join(other, NULL);
}

int main(int argc, char **argv)
{
    const char *kind = argc == 2 ? argv[1] : "";
    long sum = sound_loops();
    if (strcmp(kind, "openmp") == 0)
        racing_loop();
    else
        two_threads(strcmp(kind, "threads") == 0 ? NULL : &lock);
    printf("%s: %ld %d\n", kind, sum, shared);
    return 0;
}
