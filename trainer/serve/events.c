/* serve/events.c - the progress of a job as server-sent events (WHATWG HTML, section 9.2). */
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/serve/server.h"

typedef struct stream {
    vl_server *server;
    int64_t job, version;
    vl_str text; /* what is still to be sent, from `at` */
    size_t at;
    bool final;
} stream;

static void free_stream(void *user)
{
    vl_str_clear(&((stream *)user)->text);
    vl_free(user);
}

/* Fills `text` with the next event, or a comment that keeps the connection open. False: the stream ends. */
static bool next(stream *s)
{
    vl_str state = VL_STR_INIT;
    vl_str_clear(&s->text);
    s->at = 0;
    if (s->final)
        return false;
    int got = vl_jobs_wait(&state, &s->final, &s->server->jobs, s->job, &s->version, 1000);
    if (got > 0)
        vl_str_printf(&s->text, "data: %s\n\n", state.data ? state.data : "{}");
    else if (got == 0)
        vl_str_puts(&s->text, ": \n\n");
    vl_str_clear(&state);
    return got >= 0 && !s->text.failed;
}

static ssize_t read_stream(void *user, uint64_t position, char *out, size_t room)
{
    stream *s = user;
    (void)position;
    if (s->at == s->text.size && (atomic_load(&s->server->stopping) || !next(s)))
        return MHD_CONTENT_READER_END_OF_STREAM;
    size_t n = s->text.size - s->at;
    n = n < room ? n : room;
    memcpy(out, s->text.data + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

enum MHD_Result vl_http_events(vl_server *server, struct MHD_Connection *connection, int64_t job)
{
    stream *s = vl_calloc(1, sizeof *s);
    if (!s)
        return MHD_NO;
    *s = (stream){.server = server, .job = job};
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_stream, s, free_stream);
    if (!response) {
        free_stream(s);
        return MHD_NO;
    }
    return vl_http_send(connection, MHD_HTTP_OK, response, "text/event-stream");
}
