/* vl_cache_build from a small model to files: contents, resuming after SIGKILL at any time, refusals, bounds.
 *
 * `test_build --build CONFIG-ASSIGNMENTS...` builds in a process of its own, so that it can be killed. */
#include "tests/support/temp_folder.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include <vlens/cache.h>

#include "trainer/base/file.h"
#include "trainer/base/mem.h"

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures"
#define LLAVA    FIXTURES "/models/llava-base-f32"
#define LLAMA    FIXTURES "/models/llama-base-f32"

/* ---- a run ------------------------------------------------------------------------------------------------- */

typedef struct session {
    vl_device *device;
    vl_model *model;
    vl_config *config;
    vl_error err;
    char messages[2048];
    int stop_after; /* calls of progress; 0: never */
    int calls;
} session;

static void set(session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void set(session *s, const char *format, ...)
{
    char text[2 * TEMP_PATH_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (vl_config_set(s->config, text, &s->err) != VL_OK) {
        fprintf(stderr, "%s\n", s->err.message);
        abort();
    }
}

static vl_status session_open(session *s, const char *model)
{
    memset(s, 0, sizeof *s);
    VL_TRY(vl_config_new(&s->config, &s->err));
    VL_TRY(vl_device_open(&s->device, "cpu", 1, &s->err));
    vl_model_options options = {.path = model, .device = s->device};
    set(s, "model=%s", model);
    return vl_model_open(&s->model, &options, &s->err);
}

static void session_close(session *s)
{
    vl_config_free(s->config);
    vl_model_close(s->model);
    vl_device_close(s->device);
}

static int on_progress(void *user, const vl_progress *progress)
{
    session *s = user;
    (void)progress;
    return s->stop_after > 0 && ++s->calls > s->stop_after;
}

static void on_message(void *user, int is_warning, const char *line)
{
    session *s = user;
    size_t used = strlen(s->messages);
    snprintf(s->messages + used, sizeof s->messages - used, "%s%s\n", is_warning ? "warning: " : "", line);
}

static vl_status build(session *s, vl_cache_plan *plan, bool dry_run, bool fresh)
{
    vl_cache_build_options options = {.dry_run = dry_run, .fresh = fresh};
    vl_observer observer = {on_progress, on_message, s};
    s->messages[0] = 0;
    s->calls = 0;
    return vl_cache_build(plan, s->config, s->model, &options, &observer, &s->err);
}

static void must_build(session *s, vl_cache_plan *plan)
{
    if (build(s, plan, false, false) != VL_OK)
        fail_msg("%s", s->err.message);
}

static const char SAMPLES[] =
    "{\"image\": \"scene.png\", \"prompt\": \"What is this?\", \"answer\": \"a scene\"}\n"
    "{\"image\": \"wide.png\", \"prompt\": \"Where is it?\"}\n"
    "\n"
    "{\"prompt\": \"A text without any picture, and somewhat longer than the others are.\"}\n"
    "{\"image\": [\"tall.png\", \"scene.png\"], \"prompt\": \"Two of them\"}\n"
    "{\"image\": \"gray.png\", \"prompt\": \"Which colour?\"}\n"
    "{\"image\": \"alpha.png\", \"conversations\": [{\"from\": \"human\", \"value\": \"<image>\\nName it.\"}, "
    "{\"from\": \"gpt\", \"value\": \"alpha\"}]}\n"
    "{\"image\": \"small.png\", \"prompt\": \"Small?\"}\n"
    "{\"image\": \"square.png\", \"prompt\": \"Square?\"}\n"
    "{\"image\": \"palette.png\", \"prompt\": \"How many colours are there?\"}\n"
    "{\"image\": \"wide.png\", \"prompt\": \"Once more\"}\n";

static void set_samples(session *s, const char *folder, const char *lines)
{
    temp_text(folder, "samples.jsonl", lines);
    set(s, "data.samples=%s/samples.jsonl", folder);
    set(s, "data.images=%s/images", FIXTURES);
    set(s, "data.heldout=0.3");
    set(s, "cache.dir=%s/cache", folder);
    set(s, "cache.positions.image=5");
    set(s, "cache.shard_tokens=40");
    set(s, "cache.batch_tokens=50");
}

static vl_cache *open_cache(const session *s)
{
    vl_error err = VL_ERROR_INIT;
    vl_cache *cache;
    if (vl_cache_open(&cache, s->config->cache.dir, &err) != VL_OK || vl_cache_split(cache, s->config, &err) != VL_OK)
        fail_msg("%s", err.message);
    return cache;
}

/* ---- contents ---------------------------------------------------------------------------------------------- */

typedef struct reference {
    vl_device *device;
    float *states; /* [L + 1, T, D] */
    int64_t n, d;
} reference;

static int on_tap(void *user, const vl_tap *tap)
{
    reference *r = user;
    return vl_device_read(r->device, r->states + tap->state * r->n * r->d, &tap->x, NULL) != VL_OK;
}

/* The rows of one sample against a forward of that sample alone. */
static void check_sample(session *s, vl_cache *cache, int32_t number, const vl_prompt *prompt)
{
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    vl_sequence *sequence;
    assert_int_equal(vl_model_encode(&sequence, s->model, prompt, &s->err), VL_OK);
    reference r = {s->device, NULL, sequence->n_tokens, info->d_model};
    r.states = malloc((size_t)(info->n_states * r.n * r.d) * sizeof(float));
    const vl_sequence *sequences[] = {sequence};
    vl_forward forward = {.sequences = sequences, .n_sequences = 1, .tap = on_tap, .user = &r};
    assert_int_equal(vl_model_forward(s->model, &forward, &s->err), VL_OK);
    float *row = malloc((size_t)r.d * sizeof *row);
    int64_t seen[VL_CLASS_COUNT] = {0}, last = -1;
    for (int64_t i = 0; i < info->n_tokens; i++) {
        if (tokens->sample[i] != number)
            continue;
        int64_t t = tokens->position[i], next = t + 1;
        assert_true(t > last && t < r.n);
        last = t;
        seen[tokens->token_class[i]]++;
        assert_int_equal(tokens->id[i], sequence->ids[t]);
        assert_int_equal(tokens->token_class[i], sequence->token_class[t]);
        bool has_next = next < r.n && sequence->token_class[next] != VL_IMAGE;
        assert_int_equal(tokens->next_id[i], has_next ? sequence->ids[next] : -1);
        assert_memory_equal(tokens->patch[i], sequence->patch[t], sizeof sequence->patch[t]);
        for (int64_t state = 0; state < info->n_states; state++) {
            assert_int_equal(vl_cache_read(row, cache, state, i, 1, &s->err), VL_OK);
            for (int64_t k = 0; k < r.d; k++) {
                float expected = r.states[(state * r.n + t) * r.d + k];
                assert_true(fabsf(row[k] - expected) <= 1e-5f * (1 + fabsf(expected)));
            }
        }
    }
    assert_int_equal(seen[VL_LAST], 1);
    assert_int_equal(seen[VL_IMAGE], prompt->n_images ? 5 : 0);
    int64_t texts = 0;
    for (int64_t t = 0; t < r.n; t++)
        texts += sequence->token_class[t] == VL_TEXT;
    assert_int_equal(seen[VL_TEXT], texts);
    free(row);
    free(r.states);
    vl_sequence_free(sequence);
}

static void check_answered(session *s, vl_cache *cache, int32_t number, const char *question, const char *answer,
                           const char *const *picture)
{
    const vl_turn_part asked[] = {{NULL}, {question}}, said[] = {{answer}};
    const vl_turn turns[] = {{"user", asked, 2}, {"assistant", said, 1}};
    check_sample(s, cache, number, &(vl_prompt){.turns = turns, .n_turns = 2, .image_paths = picture, .n_images = 1});
}

static void test_contents(void **state)
{
    session s;
    vl_cache_plan plan, dry;
    assert_int_equal(session_open(&s, LLAVA), VL_OK);
    set_samples(&s, *state, SAMPLES);
    set(&s, "cache.dtype=float32");
    assert_int_equal(build(&s, &dry, true, false), VL_OK);
    assert_false(vl_path_exists(s.config->cache.dir));
    assert_true(dry.seconds > 0);
    must_build(&s, &plan);
    vl_cache *cache = open_cache(&s);
    const vl_cache_info *info = vl_cache_get_info(cache);
    assert_true(info->n_shards > 2);
    assert_int_equal(info->n_samples, 10);
    assert_int_equal(info->n_images, 10);
    assert_int_equal(plan.n_images, 8);
    assert_int_equal(plan.n_bytes, info->n_tokens * info->n_states * info->d_model * 4);
    int64_t total = 0;
    for (int c = 0; c < VL_CLASS_COUNT; c++) {
        assert_int_equal(plan.n_tokens[c], dry.n_tokens[c]);
        total += plan.n_tokens[c];
    }
    assert_int_equal(total, info->n_tokens);
    assert_int_equal(plan.n_forward_tokens, dry.n_forward_tokens);
    const char *scene[] = {FIXTURES "/images/scene.png"}, *alpha[] = {FIXTURES "/images/alpha.png"};
    check_answered(&s, cache, 0, "What is this?", "a scene", scene);
    check_answered(&s, cache, 6, "Name it.", "alpha", alpha);
    check_sample(&s, cache, 3,
                 &(vl_prompt){.text = "A text without any picture, and somewhat longer than the others "
                                      "are."});
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    assert_string_equal(samples->answer[0], "a scene");
    assert_string_equal(samples->answer[1], "");
    assert_int_equal(samples->heldout[0], samples->heldout[3]); /* scene.png */
    assert_int_equal(samples->heldout[1], samples->heldout[9]); /* wide.png */
    assert_string_equal(vl_cache_piece(cache, 1), "<s>");
    vl_cache_close(cache);
    s.messages[0] = 0;
    assert_int_equal(vl_cache_verify(s.config->cache.dir, &(vl_observer){NULL, on_message, &s}, &s.err), VL_OK);
    assert_string_equal(s.messages, "");
    session_close(&s);
}

static void test_generated(void **state)
{
    session s;
    assert_int_equal(session_open(&s, LLAVA), VL_OK);
    set_samples(&s, *state, SAMPLES);
    set(&s, "cache.positions.generated=3");
    must_build(&s, NULL);
    vl_cache *cache = open_cache(&s);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    int64_t generated = 0;
    for (int64_t i = 1; i < vl_cache_get_info(cache)->n_tokens; i++) {
        if (tokens->token_class[i] != VL_GENERATED)
            continue;
        generated++;
        assert_true(tokens->token_class[i - 1] == VL_LAST || tokens->token_class[i - 1] == VL_GENERATED);
        assert_true(tokens->sample[i] != 0 && tokens->sample[i] != 6); /* their answers were given */
        assert_int_equal(tokens->next_id[i - 1], tokens->id[i]);
    }
    assert_true(generated > 0 && generated <= 30);
    vl_cache_close(cache);
    session_close(&s);
}

static void test_text(void **state)
{
    session s;
    char corpus[6000] = "";
    for (int i = 0; strlen(corpus) < sizeof corpus - 40; i++)
        snprintf(corpus + strlen(corpus), 40, "Sentence %d is here, \xc3\xa4. ", i);
    temp_text(*state, "corpus.txt", corpus);
    assert_int_equal(session_open(&s, LLAMA), VL_OK);
    set(&s, "data.text=%s/corpus.txt", (char *)*state);
    set(&s, "data.max_tokens=16");
    set(&s, "data.heldout=0.4");
    set(&s, "cache.dir=%s/cache", (char *)*state);
    must_build(&s, NULL);
    vl_cache *cache = open_cache(&s);
    const vl_cache_info *info = vl_cache_get_info(cache);
    const vl_cache_tokens *tokens = vl_cache_get_tokens(cache);
    const vl_cache_samples *samples = vl_cache_get_samples(cache);
    vl_token_ids ids;
    assert_int_equal(vl_tokenizer_encode(&ids, vl_model_tokenizer(s.model), corpus, strlen(corpus), false, &s.err),
                     VL_OK);
    int64_t plain = 0, heldout = 0;
    for (int64_t i = 0; i < info->n_tokens; i++) {
        assert_int_equal(tokens->token_class[i], VL_TEXT);
        assert_int_equal(tokens->sample[i], i / 16);
        if (tokens->position[i] == 0)
            assert_int_equal(tokens->id[i], vl_tokenizer_bos(vl_model_tokenizer(s.model)));
        else
            assert_int_equal(tokens->id[i], ids.ids[plain++]);
    }
    assert_int_equal(plain, ids.n);
    for (int64_t i = 0; i < info->n_samples; i++) {
        assert_int_equal(samples->heldout[i], samples->heldout[i / 16 * 16]);
        heldout += samples->heldout[i];
    }
    assert_true(heldout > 0 && heldout < info->n_samples);
    vl_release(ids.ids);
    vl_cache_close(cache);
    session_close(&s);
}

/* ---- settings and bounds ----------------------------------------------------------------------------------- */

static void test_settings(void **state)
{
    session s;
    vl_cache_plan first, plan;
    char path[TEMP_PATH_SIZE];
    static const struct {
        const char *key, *other, *back;
    } cases[] = {{"cache.positions.image", "6", "5"}, {"cache.seed", "1", "42"},
                 {"cache.dtype", "float32", "auto"},  {"data.exif", "false", "true"},
                 {"data.max_tokens", "500", "0"},     {"cache.batch_tokens", "70", "50"}};
    /* The split is chosen where a lens is fitted, and where shards end is no one's concern. */
    static const char *const free_keys[] = {"data.heldout=0.2", "data.seed=1", "cache.shard_tokens=41",
                                            "data.max_samples=3"};
    assert_int_equal(session_open(&s, LLAVA), VL_OK);
    set_samples(&s, *state, SAMPLES);
    must_build(&s, &first);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set(&s, "%s=%s", cases[i].key, cases[i].other);
        assert_int_equal(build(&s, &plan, false, false), VL_EMISMATCH);
        if (!strstr(s.err.message, cases[i].key) || !strstr(s.err.message, cases[i].other))
            fail_msg("%s: %s", cases[i].key, s.err.message);
        set(&s, "%s=%s", cases[i].key, cases[i].back);
    }
    /* Again the same: at once. */
    must_build(&s, &plan);
    assert_int_equal(plan.n_forward_tokens, 0);
    for (int c = 0; c < VL_CLASS_COUNT; c++)
        assert_int_equal(plan.n_tokens[c], first.n_tokens[c]);
    assert_int_equal(plan.n_heldout, first.n_heldout);
    assert_int_equal(plan.n_images, first.n_images);
    assert_int_equal(plan.n_heldout_images, first.n_heldout_images);
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++) {
        set(&s, "%s", free_keys[i]);
        must_build(&s, &plan);
        assert_int_equal(plan.n_run_samples, 0);
    }
    assert_int_equal(plan.n_samples, 3);
    /* Other contents of the same file: what is new runs. */
    temp_text(*state, "samples.jsonl", "{\"prompt\": \"x\"}\n");
    must_build(&s, &plan);
    assert_int_equal(plan.n_run_samples, 1);
    assert_int_equal(plan.n_samples, 1);
    /* --fresh replaces what vlens wrote and nothing else. */
    temp_text(s.config->cache.dir, "shard-notes.h5", "mine");
    temp_text(s.config->cache.dir, "shard-00001.h5.bak", "mine");
    if (build(&s, &plan, false, true) != VL_OK)
        fail_msg("%s", s.err.message);
    assert_int_equal(plan.n_samples, 1);
    assert_true(vl_path_exists(temp_path(path, s.config->cache.dir, "shard-notes.h5")));
    assert_true(vl_path_exists(temp_path(path, s.config->cache.dir, "shard-00001.h5.bak")));
    assert_false(vl_path_exists(temp_path(path, s.config->cache.dir, "shard-00001.h5")));
    session_close(&s);
}

static void test_bound(void **state)
{
    session s;
    vl_cache_plan plan;
    long long limit;
    assert_int_equal(session_open(&s, LLAVA), VL_OK);
    set_samples(&s, *state, SAMPLES);
    set(&s, "cache.max_bytes=1000");
    assert_int_equal(build(&s, &plan, false, false), VL_EINVAL);
    assert_non_null(strstr(s.err.message, "cache.max_bytes allows 1000"));
    assert_false(vl_path_exists(s.config->cache.dir) && vl_cache_exists(s.config->cache.dir));
    /* Follow the advice. */
    set(&s, "cache.positions.image=all");
    set(&s, "cache.dtype=float32");
    assert_int_equal(build(&s, &plan, true, false), VL_EINVAL);
    const char *needs = strstr(s.err.message, "needs ");
    assert_non_null(needs);
    set(&s, "cache.max_bytes=%lld", atoll(needs + 6) - 40000);
    assert_int_equal(build(&s, &plan, true, false), VL_EINVAL);
    const char *advice = strstr(s.err.message, "{text: ");
    assert_non_null(advice);
    limit = atoll(advice + 7);
    set(&s, "cache.positions.text=%lld", limit);
    set(&s, "cache.positions.image=%lld", limit);
    must_build(&s, &plan);
    int64_t size = 0;
    for (int i = 0; i < 100; i++) {
        char shard[TEMP_PATH_SIZE];
        struct stat info;
        temp_format(shard, sizeof shard, "%s/shard-%05d.h5", s.config->cache.dir, i);
        size += stat(shard, &info) == 0 ? info.st_size : 0;
    }
    struct stat index;
    char path[TEMP_PATH_SIZE];
    assert_int_equal(stat(temp_path(path, s.config->cache.dir, "index.h5"), &index), 0);
    assert_true(size + index.st_size <= s.config->cache.max_bytes);
    session_close(&s);
}

static void test_refused(void **state)
{
    session s;
    assert_int_equal(session_open(&s, LLAVA), VL_OK);
    /* A file that is no image: named with its line. */
    temp_text(*state, "broken.png", "this is no image");
    set_samples(&s, *state, "{\"prompt\": \"fine\"}\n{\"image\": \"broken.png\", \"prompt\": \"x\"}\n");
    set(&s, "data.images=");
    assert_int_equal(build(&s, NULL, false, false), VL_EFORMAT);
    assert_non_null(strstr(s.err.message, "samples.jsonl:2: "));
    assert_non_null(strstr(s.err.message, "broken.png"));
    set_samples(&s, *state, "{\"image\": \"wide.png\", \"prompt\": \"x\"}\n");
    set(&s, "data.template=none");
    assert_int_equal(build(&s, NULL, false, false), VL_EFORMAT);
    assert_non_null(strstr(s.err.message, "samples.jsonl:1: prompt has 0 image tokens for 1 images"));
    set(&s, "data.template=auto");
    set(&s, "data.max_tokens=8");
    assert_int_equal(build(&s, NULL, false, false), VL_EFORMAT);
    assert_non_null(strstr(s.err.message, "max_tokens is 8"));
    set(&s, "data.max_tokens=0");
    set(&s, "cache.positions.generated=all");
    assert_int_equal(build(&s, NULL, false, false), VL_EINVAL);
    session_close(&s);
    assert_int_equal(session_open(&s, LLAMA), VL_OK);
    set_samples(&s, *state, "{\"image\": \"wide.png\", \"prompt\": \"x\"}\n");
    assert_int_equal(build(&s, NULL, false, false), VL_EFORMAT);
    assert_non_null(strstr(s.err.message, "samples.jsonl:1: an image, but"));
    session_close(&s);
}

/* ---- interrupted ------------------------------------------------------------------------------------------- */

static char *read_file(size_t *size, const char *folder, const char *name)
{
    char path[TEMP_PATH_SIZE], *data;
    if (vl_file_read(&data, size, temp_path(path, folder, name), 1 << 28, NULL) != VL_OK)
        fail_msg("%s cannot be read", path);
    return data;
}

static void same_columns(const vl_cache *a, const vl_cache *b)
{
    const vl_cache_info *info = vl_cache_get_info(a);
    const vl_cache_tokens *x = vl_cache_get_tokens(a), *y = vl_cache_get_tokens(b);
    size_t n = (size_t)info->n_tokens;
    assert_int_equal(info->n_tokens, vl_cache_get_info(b)->n_tokens);
    assert_int_equal(info->n_shards, vl_cache_get_info(b)->n_shards);
    assert_memory_equal(x->id, y->id, n * sizeof *x->id);
    assert_memory_equal(x->next_id, y->next_id, n * sizeof *x->id);
    assert_memory_equal(x->position, y->position, n * sizeof *x->id);
    assert_memory_equal(x->sample, y->sample, n * sizeof *x->id);
    assert_memory_equal(x->image, y->image, n * sizeof *x->id);
    assert_memory_equal(x->token_class, y->token_class, n);
    assert_string_equal(info->fingerprint, vl_cache_get_info(b)->fingerprint);
}

/* Shards byte for byte; the index, which holds a time, by what is in it. */
static void same_caches(const char *a, const char *b)
{
    vl_cache *x, *y;
    assert_int_equal(vl_cache_open(&x, a, NULL), VL_OK);
    assert_int_equal(vl_cache_open(&y, b, NULL), VL_OK);
    same_columns(x, y);
    for (int64_t i = 0; i < vl_cache_get_info(x)->n_shards; i++) {
        char name[32];
        size_t na, nb;
        temp_format(name, sizeof name, "shard-%05d.h5", (int)i);
        char *da = read_file(&na, a, name), *db = read_file(&nb, b, name);
        assert_int_equal(na, nb);
        assert_memory_equal(da, db, na);
        vl_free(da);
        vl_free(db);
    }
    vl_cache_close(x);
    vl_cache_close(y);
}

static void test_cancelled(void **state)
{
    session s;
    char whole[TEMP_PATH_SIZE], path[TEMP_PATH_SIZE];
    assert_int_equal(session_open(&s, LLAVA), VL_OK);
    set_samples(&s, *state, SAMPLES);
    must_build(&s, NULL);
    temp_path(whole, *state, "whole");
    assert_int_equal(rename(s.config->cache.dir, whole), 0);
    vl_status status;
    int rounds = 0;
    do { /* progress is reported at most five times a second: the first report of each run stops it */
        s.stop_after = rounds < 3 ? 1 + rounds : 0;
        status = build(&s, NULL, false, false);
        assert_true(status == VL_OK || status == VL_ECANCELLED);
    } while (status != VL_OK && ++rounds < 20);
    assert_int_equal(status, VL_OK);
    same_caches(whole, s.config->cache.dir);
    s.stop_after = 0; /* it may have ended before the report that was to stop it */
    /* A damaged shard is made again. */
    temp_path(path, s.config->cache.dir, "shard-00001.h5");
    assert_int_equal(truncate(path, 1000), 0);
    vl_cache_plan plan;
    must_build(&s, &plan);
    assert_true(plan.n_resumed_tokens > 0);
    assert_non_null(strstr(s.messages, "warning: "));
    same_caches(whole, s.config->cache.dir);
    session_close(&s);
}

static int child(int argc, char **argv)
{
    session s;
    if (session_open(&s, LLAVA) != VL_OK)
        return 3;
    for (int i = 2; i < argc; i++)
        set(&s, "%s", argv[i]);
    vl_status status = build(&s, NULL, false, false);
    if (status != VL_OK)
        fprintf(stderr, "%s\n", s.err.message);
    session_close(&s);
    return status != VL_OK;
}

/* Runs --build and kills it after so many microseconds. True when it ended by itself. */
static bool run_child(const char *folder, const char *cache, int64_t microseconds)
{
    char samples[TEMP_PATH_SIZE + 32], dir[TEMP_PATH_SIZE + 32];
    temp_format(samples, sizeof samples, "data.samples=%s/samples.jsonl", folder);
    temp_format(dir, sizeof dir, "cache.dir=%s", cache);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_build", "--build", samples, dir, "data.images=" FIXTURES "/images",
              "data.heldout=0.3", "cache.positions.image=5", "cache.shard_tokens=40", "cache.batch_tokens=50",
              (char *)NULL);
        _exit(127);
    }
    int status;
    if (microseconds >= 0) {
        struct timespec wait = {microseconds / 1000000, microseconds % 1000000 * 1000};
        nanosleep(&wait, NULL);
        kill(pid, SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        return false;
    assert_int_equal(WEXITSTATUS(status), 0);
    return true;
}

static void test_killed(void **state)
{
    char whole[TEMP_PATH_SIZE], cache[TEMP_PATH_SIZE];
    temp_text(*state, "samples.jsonl", SAMPLES);
    temp_path(whole, *state, "whole");
    double start = vl_clock();
    assert_true(run_child(*state, whole, -1));
    int64_t length = (int64_t)(1e6 * (vl_clock() - start));
    unsigned random = 12345;
    int kills = 0, midway = 0;
    for (int trial = 0; trial < 6; trial++) {
        char name[16];
        temp_format(name, sizeof name, "cache-%d", trial);
        temp_path(cache, *state, name);
        for (bool ended = false; !ended;) {
            random = random * 1103515245u + 12345u;
            /* Each try may live longer, so that it ends in the end however slow the machine is. */
            int64_t wait = (int64_t)(random >> 8 & 0xffff) * length / 0xffff * (4 + kills % 8) / 6;
            ended = run_child(*state, cache, wait);
            kills += !ended;
            char shard[TEMP_PATH_SIZE];
            midway += !ended && vl_path_exists(temp_path(shard, cache, "shard-00000.h5")) && !vl_cache_exists(cache);
        }
        same_caches(whole, cache);
        assert_int_equal(vl_cache_verify(cache, NULL, NULL), VL_OK);
    }
    assert_true(kills > 0);
    print_message("killed %d times, %d of them between the first shard and the index\n", kills, midway);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--build") == 0)
        return child(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_contents, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_generated, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_text, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_settings, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_bound, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_refused, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_killed, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
