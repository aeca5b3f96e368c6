/* serve/http.c - who may ask, what they may ask, and the answers. Nothing of a request is used before its host, its
 * token, its origin, its method and its length were looked at. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer/base/mem.h"
#include "trainer/image/image.h"
#include "trainer/serve/server.h"
#include "trainer/view/json_text.h"
#include "trainer/view/template.h"

/* By number: their names in microhttpd.h changed with RFC 9110. */
enum { TOO_LARGE = 413, UNPROCESSABLE = 422 };

typedef enum route { HOME, PICTURE, ASK, EVENTS, CANCEL, READING, READINGS, ROUTES } route;
static const struct {
    const char *path;
    bool whole, post; /* the path is all of it; else a number follows */
} routes[ROUTES] = {{"", true, false},        {"picture", true, true}, {"ask", true, true},
                    {"events", true, false},  {"cancel", true, true},  {"reading/", false, false},
                    {"readings", true, false}};

typedef struct request {
    route route;
    int64_t number;   /* in the path */
    bool json;        /* the path ends with .json */
    unsigned refused; /* a status; the rest of the body is thrown away */
    int64_t limit, got;
    time_t start;
    vl_str body;     /* of a question */
    int file;        /* of a picture; -1 */
    int64_t picture; /* its number, while it is not whole */
} request;

/* ---- answers ----------------------------------------------------------------------------------------------- */

enum MHD_Result vl_http_send(struct MHD_Connection *connection, unsigned status, struct MHD_Response *response,
                             const char *type)
{
    static const char *const headers[][2] = {{"Cache-Control", "no-store"},
                                             {"X-Content-Type-Options", "nosniff"},
                                             {"Referrer-Policy", "no-referrer"}, /* the address holds the token */
                                             {"X-Frame-Options", "SAMEORIGIN"},
                                             {"Cross-Origin-Resource-Policy", "same-origin"},
                                             {"Cross-Origin-Opener-Policy", "same-origin"}};
    MHD_add_response_header(response, "Content-Type", type);
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        MHD_add_response_header(response, headers[i][0], headers[i][1]);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned status, const char *type, const char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
    return response ? vl_http_send(connection, status, response, type) : MHD_NO;
}

static enum MHD_Result send_error(struct MHD_Connection *connection, unsigned status, const char *message)
{
    json_t *json = json_pack("{s:o}", "error", vl_json_text(message));
    char *text = json_dumps(json, JSON_COMPACT);
    enum MHD_Result result = send_text(connection, status, "application/json", text ? text : "{}");
    vl_free(text);
    json_decref(json);
    return result;
}

static const char *reason(unsigned status)
{
    switch (status) {
    case MHD_HTTP_FORBIDDEN: return "the address lacks the token, or another page asks";
    case MHD_HTTP_NOT_FOUND: return "nothing is here";
    case MHD_HTTP_METHOD_NOT_ALLOWED: return "not with this method";
    case MHD_HTTP_LENGTH_REQUIRED: return "its length must be a number";
    case TOO_LARGE: return "larger than allowed";
    case MHD_HTTP_MISDIRECTED_REQUEST: return "the host is not this one";
    case MHD_HTTP_SERVICE_UNAVAILABLE: return "too many at once: try again";
    default: return "it cannot be answered";
    }
}

/* ---- who may ask ------------------------------------------------------------------------------------------- */

/* Takes the same time wherever the two differ. */
static bool same_token(const char *a, const char *b, size_t n)
{
    unsigned char difference = 0;
    for (size_t i = 0; i < n; i++)
        difference |= (unsigned char)(a[i] ^ b[i]);
    return difference == 0;
}

static bool is_host(const vl_server *s, const char *host)
{
    for (int i = 0; host && i < 3; i++)
        if (s->host[i][0] && !strcmp(host, s->host[i]))
            return true;
    return false;
}

/* The path behind the token; NULL without it. */
static const char *behind_token(const vl_server *s, const char *url)
{
    size_t n = strlen(s->token);
    if (url[0] != '/' || strlen(url) < n + 2 || !same_token(url + 1, s->token, n) || url[n + 1] != '/')
        return NULL;
    return url + n + 2;
}

/* "12" or "12.json"; 0: neither. */
static int64_t number_of(const char *text, bool *json)
{
    char *end;
    if (*text < '1' || *text > '9' || strlen(text) > 20)
        return 0;
    int64_t n = strtoll(text, &end, 10);
    *json = !strcmp(end, ".json");
    return *end && !*json ? 0 : n;
}

static bool find_route(request *r, const char *path)
{
    for (int i = 0; i < ROUTES; i++) {
        size_t n = strlen(routes[i].path);
        r->route = (route)i;
        if (routes[i].whole ? !strcmp(path, routes[i].path) : !strncmp(path, routes[i].path, n))
            return routes[i].whole || (r->number = number_of(path + n, &r->json)) > 0;
    }
    return false;
}

/* 0, or the status that refuses (204: there is nothing to say). */
static unsigned check(const vl_server *s, request *r, struct MHD_Connection *c, const char *url, const char *method)
{
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host");
    const char *origin = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Origin");
    const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Length");
    if (atomic_load(&s->stopping) || atomic_load(&s->connections) > VL_SERVE_CONNECTIONS)
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    if (!is_host(s, host))
        return MHD_HTTP_MISDIRECTED_REQUEST;
    if (!strcmp(url, "/favicon.ico")) /* browsers ask without being told to: there is none, and that is no error */
        return MHD_HTTP_NO_CONTENT;
    const char *path = behind_token(s, url);
    if (!path || (origin && (strncmp(origin, "http://", 7) != 0 || strcmp(origin + 7, host) != 0)))
        return MHD_HTTP_FORBIDDEN;
    if (!find_route(r, path))
        return MHD_HTTP_NOT_FOUND;
    if (strcmp(method, routes[r->route].post ? "POST" : "GET") != 0)
        return MHD_HTTP_METHOD_NOT_ALLOWED;
    r->limit = r->route == PICTURE ? s->options.max_upload : r->route == ASK ? VL_ASK_MAX_BYTES : 0;
    if (length) {
        char *end;
        errno = 0;
        long long n = strtoll(length, &end, 10);
        if (*end || end == length || n < 0)
            return MHD_HTTP_LENGTH_REQUIRED;
        if (errno || n > r->limit)
            return TOO_LARGE;
    }
    return 0;
}

/* ---- bodies ------------------------------------------------------------------------------------------------ */

static bool open_picture(vl_server *s, request *r)
{
    char path[4200];
    r->picture = vl_shelf_new_picture(&s->shelf);
    vl_shelf_picture_path(path, &s->shelf, r->picture);
    r->file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return r->file >= 0;
}

static bool write_all(int file, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t done = write(file, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        data += done;
        n -= (size_t)done;
    }
    return true;
}

/* A part of a body. False: the connection is closed. */
static bool take(request *r, const char *data, size_t n)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    r->got += (int64_t)n;
    if (now.tv_sec - r->start > VL_SERVE_UPLOAD || r->got > 2 * r->limit + 65536)
        return false;
    if (r->got > r->limit)
        r->refused = TOO_LARGE;
    if (r->refused)
        return true;
    if (r->route == ASK)
        vl_str_append(&r->body, data, n);
    else if (r->file < 0 || !write_all(r->file, data, n))
        r->refused = MHD_HTTP_INSUFFICIENT_STORAGE;
    return true;
}

/* ---- what is asked ----------------------------------------------------------------------------------------- */

static enum MHD_Result answer_picture(vl_server *s, request *r, struct MHD_Connection *c)
{
    char path[4200], text[128];
    vl_error err = VL_ERROR_INIT;
    vl_image image = {0};
    vl_image_options options = {.max_pixels = s->options.max_pixels};
    vl_shelf_picture_path(path, &s->shelf, r->picture);
    close(r->file);
    r->file = -1;
    pthread_mutex_lock(&s->decoding);
    vl_status status = vl_image_open(&image, path, &options, &err);
    snprintf(text, sizeof text, "{\"picture\":%lld,\"width\":%d,\"height\":%d}", (long long)r->picture, image.width,
             image.height);
    vl_image_clear(&image);
    pthread_mutex_unlock(&s->decoding);
    if (status == VL_OK) {
        r->picture = 0; /* it stays */
        return send_text(c, MHD_HTTP_OK, "application/json", text);
    }
    const char *message = strstr(err.message, ": "); /* without the path of the temporary folder */
    return send_error(c, UNPROCESSABLE, message ? message + 2 : err.message);
}

static enum MHD_Result answer_ask(vl_server *s, request *r, struct MHD_Connection *c)
{
    vl_error err = VL_ERROR_INIT;
    vl_ask ask;
    char text[64];
    if (vl_ask_parse(&ask, r->body.data ? r->body.data : "", r->body.size, s->options.n_lenses, &err) != VL_OK)
        return send_error(c, MHD_HTTP_BAD_REQUEST, err.message);
    for (int i = 0; i < ask.n_pictures; i++)
        if (!vl_shelf_has_picture(&s->shelf, ask.pictures[i])) {
            vl_ask_clear(&ask);
            return send_error(c, MHD_HTTP_BAD_REQUEST, "no such picture: upload it again");
        }
    int64_t id = vl_jobs_add(&s->jobs, &ask);
    if (!id) {
        vl_ask_clear(&ask);
        return send_error(c, MHD_HTTP_SERVICE_UNAVAILABLE, reason(MHD_HTTP_SERVICE_UNAVAILABLE));
    }
    snprintf(text, sizeof text, "{\"job\":%lld}", (long long)id);
    return send_text(c, MHD_HTTP_ACCEPTED, "application/json", text);
}

static vl_status put_home(vl_str *out, const void *user, vl_error *err)
{
    const vl_server *s = user;
    const vl_model_info *model = vl_model_get_info(s->options.model);
    json_t *lenses = json_array();
    for (int i = 0; i < s->options.n_lenses; i++)
        json_array_append_new(lenses, vl_json_text(s->options.lens_names[i]));
    json_t *root =
        json_pack("{s:o, s:o, s:b, s:I, s:I, s:i, s:i}", "model", vl_json_text(model->path), "lenses", lenses,
                  "sees_images", model->sees_images, "n_states", (json_int_t)model->n_layers + 1, "max_upload",
                  (json_int_t)s->options.max_upload, "max_k", VL_ASK_MAX_K, "max_generate", VL_ASK_MAX_GENERATE);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return vl_fail_nomem(err, "page");
    vl_template_put_json(out, text);
    vl_free(text);
    return VL_OK;
}

static enum MHD_Result answer_home(vl_server *s, struct MHD_Connection *c)
{
    vl_error err = VL_ERROR_INIT;
    char *page = NULL;
    if (vl_template_fill(&page, "serve.html", put_home, s, &err) != VL_OK)
        return send_error(c, MHD_HTTP_INTERNAL_SERVER_ERROR, err.message);
    enum MHD_Result result = send_text(c, MHD_HTTP_OK, "text/html; charset=utf-8", page);
    vl_release(page);
    return result;
}

static enum MHD_Result answer_reading(vl_server *s, const request *r, struct MHD_Connection *c)
{
    char *text = vl_shelf_get(&s->shelf, r->number, r->json);
    if (!text)
        return send_error(c, MHD_HTTP_NOT_FOUND, "this reading is no longer here");
    enum MHD_Result result = send_text(c, MHD_HTTP_OK, r->json ? "application/json" : "text/html; charset=utf-8", text);
    vl_free(text);
    return result;
}

static enum MHD_Result answer_readings(vl_server *s, struct MHD_Connection *c)
{
    vl_str list = VL_STR_INIT;
    vl_shelf_list(&list, &s->shelf);
    enum MHD_Result result = send_text(c, MHD_HTTP_OK, "application/json", list.data ? list.data : "[]");
    vl_str_clear(&list);
    return result;
}

static enum MHD_Result dispatch(vl_server *s, request *r, struct MHD_Connection *c)
{
    bool json = false;
    const char *text = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "job");
    int64_t job = text ? number_of(text, &json) : 0;
    switch (r->route) {
    case PICTURE: return answer_picture(s, r, c);
    case ASK: return answer_ask(s, r, c);
    case EVENTS: return job ? vl_http_events(s, c, job) : send_error(c, MHD_HTTP_NOT_FOUND, "no such job");
    case CANCEL:
        return vl_jobs_cancel(&s->jobs, job) ? send_text(c, MHD_HTTP_OK, "application/json", "{}")
                                             : send_error(c, MHD_HTTP_NOT_FOUND, "no such job");
    case READING: return answer_reading(s, r, c);
    case READINGS: return answer_readings(s, c);
    default: return answer_home(s, c);
    }
}

enum MHD_Result vl_http_answer(void *user, struct MHD_Connection *c, const char *url, const char *method,
                               const char *version, const char *data, size_t *size, void **state)
{
    vl_server *s = user;
    request *r = *state;
    (void)version;
    if (!r) { /* the headers are here, nothing else */
        struct timespec now;
        r = *state = vl_calloc(1, sizeof *r);
        if (!r)
            return MHD_NO;
        clock_gettime(CLOCK_MONOTONIC, &now);
        r->start = now.tv_sec;
        r->file = -1;
        r->refused = check(s, r, c, url, method);
        if (!r->refused && r->route == PICTURE && !open_picture(s, r))
            r->refused = MHD_HTTP_INSUFFICIENT_STORAGE;
        if (r->refused == MHD_HTTP_NO_CONTENT)
            return send_text(c, r->refused, "image/x-icon", "");
        return r->refused ? send_error(c, r->refused, reason(r->refused)) : MHD_YES;
    }
    if (*size > 0) {
        bool goes_on = take(r, data, *size);
        *size = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    return r->refused ? send_error(c, r->refused, reason(r->refused)) : dispatch(s, r, c);
}

void vl_http_completed(void *user, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
    vl_server *s = user;
    request *r = *state;
    (void)c;
    (void)why;
    if (!r)
        return;
    if (r->file >= 0)
        close(r->file);
    if (r->picture) /* half a picture, or none */
        vl_shelf_drop_picture(&s->shelf, r->picture);
    vl_str_clear(&r->body);
    vl_free(r);
    *state = NULL;
}
