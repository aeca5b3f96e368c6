#include "trainer/serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "trainer/base/mem.h"

enum { TOKEN_BYTES = 16, UPLOAD = 32 << 20, KEEP = 8, HEADERS = 32 << 10 };

static vl_status make_token(vl_server *s, vl_error *err)
{
    uint8_t bytes[TOKEN_BYTES];
    const char *given = s->options.token;
    if (given) {
        size_t n = strlen(given);
        if (n < 16 || n >= VL_SERVE_TOKEN ||
            strspn(given, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") != n)
            return vl_fail(err, VL_EINVAL, "a token has 16 to %d letters, digits, - or _", VL_SERVE_TOKEN - 1);
        memcpy(s->token, given, n + 1);
        return VL_OK;
    }
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return vl_fail_errno(err, VL_EIO, "no random numbers for the token");
    for (int i = 0; i < TOKEN_BYTES; i++)
        snprintf(s->token + 2 * i, 3, "%02x", bytes[i]);
    return VL_OK;
}

static vl_status check_lenses(const vl_server *s, vl_error *err)
{
    const vl_serve_options *o = &s->options;
    vl_head *head = NULL;
    bool warned;
    vl_status status = o->n_lenses ? vl_head_from_model(&head, o->model, err) : VL_OK;
    for (int i = 0; i < o->n_lenses && status == VL_OK; i++)
        status = vl_lens_check(o->lenses[i], vl_head_get_info(head), o->allow_other_model, &warned, err);
    vl_head_close(head);
    return status;
}

static void connected(void *user, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode code)
{
    vl_server *s = user;
    (void)c;
    (void)state;
    atomic_fetch_add(&s->connections, code == MHD_CONNECTION_NOTIFY_STARTED ? 1 : -1);
}

static void say_nothing(void *user, const char *format, va_list arguments)
{
    (void)user;
    (void)format;
    (void)arguments;
}

static vl_status listen_on(vl_server *s, vl_error *err)
{
    const char *name = s->options.address ? s->options.address : "127.0.0.1";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->options.port)};
    if (s->options.port < 0 || s->options.port > 65535 || inet_pton(AF_INET, name, &address.sin_addr) != 1)
        return vl_fail(err, VL_EINVAL, "%.60s:%d is no IPv4 address with a port", name, s->options.port);
    errno = 0;
    s->daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ERROR_LOG,
                                 (uint16_t)s->options.port, NULL, NULL, vl_http_answer, s, MHD_OPTION_EXTERNAL_LOGGER,
                                 say_nothing, NULL, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT,
                                 (unsigned)VL_SERVE_ACCEPTED, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)VL_SERVE_SILENT,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADERS, MHD_OPTION_NOTIFY_COMPLETED,
                                 vl_http_completed, s, MHD_OPTION_NOTIFY_CONNECTION, connected, s, MHD_OPTION_END);
    if (!s->daemon)
        return vl_fail_errno(err, VL_EIO, "%.60s:%d cannot be listened on", name, s->options.port);
    int port = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    bool any = address.sin_addr.s_addr == htonl(INADDR_ANY);
    snprintf(s->host[0], sizeof s->host[0], "127.0.0.1:%d", port);
    snprintf(s->host[1], sizeof s->host[1], "localhost:%d", port);
    snprintf(s->host[2], sizeof s->host[2], "%s:%d", name, port);
    snprintf(s->url, sizeof s->url, "http://%s:%d/%s/", any ? "127.0.0.1" : name, port, s->token);
    return VL_OK;
}

vl_status vl_server_start(vl_server **out, const vl_serve_options *options, vl_error *err)
{
    vl_status status = VL_OK;
    *out = NULL;
    vl_server *s = vl_calloc(1, sizeof *s);
    if (!s)
        return vl_fail_nomem(err, "server");
    s->options = *options;
    s->options.max_upload = options->max_upload > 0 ? options->max_upload : UPLOAD;
    s->options.max_pixels = options->max_pixels > 0 ? options->max_pixels : VL_PROMPT_MAX_PIXELS;
    pthread_mutex_init(&s->decoding, NULL);
    VL_GOTO(make_token(s, err));
    VL_GOTO(check_lenses(s, err));
    VL_GOTO(vl_shelf_open(&s->shelf, options->folder ? options->folder : "/tmp", options->keep ? options->keep : KEEP,
                          err));
    VL_GOTO(vl_jobs_start(&s->jobs, &s->options, &s->shelf, err));
    VL_GOTO(listen_on(s, err));
    *out = s;
done:
    if (status != VL_OK)
        vl_server_stop(s);
    return status;
}

const char *vl_server_url(const vl_server *s)
{
    return s->url;
}

void vl_server_stop(vl_server *s)
{
    if (!s)
        return;
    atomic_store(&s->stopping, true);
    if (s->jobs.started)
        vl_jobs_stop(&s->jobs);
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->shelf.folder[0])
        vl_shelf_close(&s->shelf);
    pthread_mutex_destroy(&s->decoding);
    vl_free(s);
}
