/* One run at a time in a folder: who holds it is said, and who is gone is recognised. */
#include "tests/support/temp_folder.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "trainer/base/file.h"
#include "trainer/base/lock.h"

/* A file system without locks, when set. */
static int no_locks;

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation)
{
    if (no_locks) {
        errno = ENOLCK;
        return -1;
    }
    return __real_flock(fd, operation);
}

static void take(vl_lock *lock, const char *folder)
{
    vl_error err = VL_ERROR_INIT;
    if (vl_lock_take(lock, folder, &err) != VL_OK)
        fail_msg("%s", err.message);
}

static void expect_busy(const char *folder, const char *text)
{
    vl_lock lock;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_lock_take(&lock, folder, &err), VL_EBUSY);
    if (!strstr(err.message, text))
        fail_msg("no \"%s\" in: %s", text, err.message);
    vl_lock_release(&lock); /* nothing to release, harmless */
}

static bool has_lock_file(const char *folder)
{
    char path[TEMP_PATH_SIZE];
    return vl_path_exists(temp_path(path, folder, ".lock"));
}

static void boot_of_this_machine(char out[64])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!file || fscanf(file, "%63s", out) != 1)
        snprintf(out, 64, "-");
    if (file)
        fclose(file);
}

/* The text of a holder as a run that was killed leaves it. */
static void leave(const char *folder, long pid, const char *host, const char *boot)
{
    char text[300];
    snprintf(text, sizeof text, "pid %ld\nhost %s\nboot %s\nsince 2026-01-02T03:04:05Z\n", pid, host, boot);
    temp_text(folder, ".lock", text);
}

/* A number that no process has. */
static long dead_pid(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return (long)child;
}

static void second_run_says_who_holds_it(void **state)
{
    vl_lock lock;
    char text[160], host[65] = "";
    gethostname(host, sizeof host - 1);
    take(&lock, *state);
    assert_string_equal(lock.stale, "");
    snprintf(text, sizeof text, "process %ld on host %s since 20", (long)getpid(), host);
    expect_busy(*state, text);
    vl_lock_release(&lock);
    assert_false(has_lock_file(*state));
    take(&lock, *state);
    vl_lock_release(&lock);
}

/* A child takes the lock and is killed: the kernel's lock ends, the text stays. */
static void killed_holder_is_recognised(void **state)
{
    int ready[2];
    char byte, text[40];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        vl_lock lock;
        if (vl_lock_take(&lock, *state, NULL) == VL_OK && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(text, sizeof text, "process %ld on", (long)child);
    expect_busy(*state, text);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(has_lock_file(*state));
    vl_lock lock;
    take(&lock, *state);
    assert_non_null(strstr(lock.stale, text));
    vl_lock_release(&lock);
    close(ready[0]);
    close(ready[1]);
}

static void holders_that_are_gone(void **state)
{
    vl_lock lock;
    char boot[64], host[65] = "";
    gethostname(host, sizeof host - 1);
    boot_of_this_machine(boot);
    /* this machine before it was started again, whatever process has that number now */
    leave(*state, (long)getppid(), host, "another-boot");
    take(&lock, *state);
    assert_non_null(strstr(lock.stale, "2026-01-02T03:04:05Z"));
    vl_lock_release(&lock);
    /* this machine under another name: a container that was made again */
    leave(*state, dead_pid(), "container", boot);
    take(&lock, *state);
    vl_lock_release(&lock);
    /* text that nobody understands */
    temp_text(*state, ".lock", "pid many\n");
    take(&lock, *state);
    assert_string_equal(lock.stale, "");
    vl_lock_release(&lock);
    /* another machine cannot be asked */
    leave(*state, dead_pid(), "elsewhere", "another-boot");
    expect_busy(*state, "on host elsewhere holds it since 2026-01-02T03:04:05Z");
    assert_true(has_lock_file(*state));
}

static void without_kernel_locks(void **state)
{
    vl_lock lock;
    char boot[64];
    boot_of_this_machine(boot);
    no_locks = 1;
    leave(*state, (long)getppid(), "host", boot);
    expect_busy(*state, "on host host since 2026-01-02T03:04:05Z");
    leave(*state, dead_pid(), "host", boot);
    take(&lock, *state);
    assert_non_null(strstr(lock.stale, "on host host"));
    vl_lock_release(&lock);
    no_locks = 0;
}

/* A link in the place of the lock is not followed. */
static void link_is_refused(void **state)
{
    vl_lock lock;
    char link[TEMP_PATH_SIZE], target[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(symlink(temp_path(target, *state, "precious"), temp_path(link, *state, ".lock")), 0);
    assert_int_equal(vl_lock_take(&lock, *state, &err), VL_EIO);
    assert_false(vl_path_exists(target));
}

/* What a killed writer left, and nothing else. */
static void temporaries_are_cleaned(void **state)
{
    const char *names[] = {"x.tmp-12", "x.tmp-", "x.tmp-1a", "xx.tmp-12", "x"};
    char path[TEMP_PATH_SIZE];
    for (size_t i = 0; i < 5; i++)
        temp_text(*state, names[i], "");
    vl_atomic_clean(temp_path(path, *state, "x"));
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(vl_path_exists(temp_path(path, *state, names[i])), i > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(second_run_says_who_holds_it, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(killed_holder_is_recognised, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(holders_that_are_gone, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(without_kernel_locks, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(link_is_refused, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(temporaries_are_cleaned, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
