/* Hostile files: the verdict is that of the reference library, and memory and processor time are bounded. Each file is
 * read by a process of its own; what that process took is printed.
 *
 * test_malformed VLENS: caches go through the program, which opens them in a process with limits. */
#include "tests/support/temp_folder.h"

#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <vlens/config.h>
#include <vlens/model.h>
#include <vlens/tokenizer.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/image/image.h"
#include "trainer/hf/safetensors.h"
#include "trainer/model/spec.h"

#define FOLDER VLENS_SOURCE_DIR "/tests/robust/malformed"

enum { WALL_LIMIT = 60, UNTOLD = 1000 };
/* AddressSanitizer keeps what is freed, and room around what is not. */
#ifdef __SANITIZE_ADDRESS__
enum { MOST_KIB = 1024 * 1024 };
#else
enum { MOST_KIB = 256 * 1024 };
#endif
/* Of processor time: a bound on what a file can make a reader do, several times what any needs. Builds that are slow on
 * purpose (sanitizers, no optimisation) get ten times as much. */
#ifdef __OPTIMIZE__
static const double most_seconds = 1;
#else
static const double most_seconds = 10;
#endif

static const char *program;
static struct {
    int files, wrong;
    long kib;
    double seconds;
    char largest[128], slowest[128];
} total;

/* ---- readers, in the child: 0 accepted, 1 rejected with a message of one line ------------------------------- */

static int verdict(vl_status status, const vl_error *err)
{
    if (status == VL_OK)
        return 0;
    return err->message[0] && !strchr(err->message, '\n') ? 1 : 3;
}

static int read_image(const char *path)
{
    vl_image image;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_image_open(&image, path, &(vl_image_options){.max_pixels = VL_PROMPT_MAX_PIXELS}, &err);
    vl_image_clear(&image);
    return verdict(status, &err);
}

static int read_safetensors(const char *path)
{
    vl_safetensors *file = NULL;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_safetensors_open(&file, path, &err);
    vl_safetensors_close(file);
    return verdict(status, &err);
}

/* Copies the file under the name that a model directory gives it, and reads it there. */
static int read_in_folder(const char *path, const char *name, bool is_config)
{
    void *folder;
    char *data;
    size_t size;
    vl_error err = VL_ERROR_INIT;
    static vl_model_spec spec;
    vl_tokenizer *tokenizer = NULL;
    if (temp_setup(&folder) != 0 || vl_file_read(&data, &size, path, 1 << 26, &err) != VL_OK)
        return 4;
    temp_write(folder, name, data, size);
    vl_free(data);
    vl_status status =
        is_config ? vl_model_spec_read(&spec, folder, &err) : vl_tokenizer_open(&tokenizer, folder, &err);
    vl_model_spec_clear(&spec);
    vl_tokenizer_close(tokenizer);
    temp_teardown(&folder);
    return verdict(status, &err);
}

static int read_yaml(const char *path)
{
    vl_config *config = NULL;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_config_read(&config, path, &err);
    vl_config_free(config);
    return verdict(status, &err);
}

static int read_file(const char *kind, const char *path)
{
    if (strcmp(kind, "yaml") == 0)
        return read_yaml(path);
    if (strcmp(kind, "image") == 0)
        return read_image(path);
    if (strcmp(kind, "safetensors") == 0)
        return read_safetensors(path);
    if (strcmp(kind, "config") == 0)
        return read_in_folder(path, "config.json", true);
    if (strcmp(kind, "tokenizer") == 0)
        return read_in_folder(path, "tokenizer.json", false);
    FILE *quiet = freopen("/dev/null", "w", stdout);
    if (quiet && freopen("/dev/null", "w", stderr))
        execl(program, program, "verify", path, (char *)NULL);
    return 5;
}

/* ---- the parent ---------------------------------------------------------------------------------------------- */

/* Returns the processor time that it took. */
static double note(const char *name, const struct rusage *use)
{
    double seconds = (double)(use->ru_utime.tv_sec + use->ru_stime.tv_sec) +
                     1e-6 * (double)(use->ru_utime.tv_usec + use->ru_stime.tv_usec);
    if (use->ru_maxrss > total.kib) {
        total.kib = use->ru_maxrss;
        snprintf(total.largest, sizeof total.largest, "%s", name);
    }
    if (seconds > total.seconds) {
        total.seconds = seconds;
        snprintf(total.slowest, sizeof total.slowest, "%s", name);
    }
    return seconds;
}

static void judge(const char *kind, const char *path, bool accepted)
{
    const char *slash = strrchr(path, '/');
    char name[128];
    int status;
    struct rusage use;
    snprintf(name, sizeof name, "%s %s", kind, slash ? slash + 1 : path);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(WALL_LIMIT);
        _exit(read_file(kind, path));
    }
    if (child < 0 || wait4(child, &status, 0, &use) != child) {
        printf("%s: no process to read it\n", name);
        total.wrong++;
        return;
    }
    int got = WIFEXITED(status) ? WEXITSTATUS(status) : UNTOLD + WTERMSIG(status);
    double seconds = note(name, &use);
    bool good = got == (accepted ? 0 : 1) && use.ru_maxrss <= MOST_KIB && seconds <= most_seconds;
    total.files++;
    total.wrong += !good;
    printf("  %-40s %s %6.1f MiB %.3f s\n", name,
           got == 0   ? "accepted"
           : got == 1 ? "rejected"
                      : "BROKEN  ",
           (double)use.ru_maxrss / 1024, seconds);
    if (!good)
        printf("%s: outcome %d (0 accepted, 1 rejected, above %d a signal), expected %d; at most %d MiB, %.0f s\n",
               name, got, UNTOLD, accepted ? 0 : 1, MOST_KIB / 1024, most_seconds);
}

static void judge_own(void)
{
    char kind[32], name[96], verdict_text[16], path[TEMP_PATH_SIZE];
    FILE *file = fopen(FOLDER "/verdicts.txt", "r");
    while (file && fscanf(file, "%31s %95s %15s%*[^\n]", kind, name, verdict_text) == 3) {
        temp_format(path, sizeof path, "%s/%s/%s", FOLDER, kind, name);
        judge(kind, path, strcmp(verdict_text, "accepted") == 0);
    }
    if (file)
        fclose(file);
}

static int judge_shared(const char *folder)
{
    char path[TEMP_PATH_SIZE];
    vl_error err = VL_ERROR_INIT;
    json_t *verdicts, *value;
    const char *name;
    int missing = 0;
    temp_format(path, sizeof path, "%s/malformed/reference_verdicts.json", folder);
    if (vl_json_read(&verdicts, path, 1 << 20, &err) != VL_OK) {
        printf("%s\n", err.message);
        total.wrong++;
        return 0;
    }
    json_object_foreach(verdicts, name, value)
    {
        temp_format(path, sizeof path, "%s/malformed/%s", folder, name);
        if (vl_path_exists(path))
            judge("safetensors", path, strncmp(json_string_value(value), "accepted", 8) == 0);
        else
            missing++;
    }
    json_decref(verdicts);
    return missing;
}

int main(int argc, char **argv)
{
    const char *shared = getenv("VLENS_SHARED_DATA");
    if (argc != 2)
        return 2;
    program = argv[1];
    judge_own();
    printf("%d files of our own\n", total.files);
    if (shared) {
        int missing = judge_shared(shared);
        printf("%d files with %s (%d of its verdicts have no file)\n", total.files, shared, missing);
    } else {
        printf("VLENS_SHARED_DATA is not set: its malformed safetensors are not read\n");
    }
    printf("%d of %d judged otherwise than the reference or over the bounds; most memory %.1f MiB (%s), most time %.3f "
           "s (%s)\n",
           total.wrong, total.files, (double)total.kib / 1024, total.largest, total.seconds, total.slowest);
    return total.wrong > 0 || total.files == 0;
}
