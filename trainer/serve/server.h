/* serve/server.h - a server: its address, its shelf, its jobs, its connections. */
#ifndef VL_SERVE_SERVER_H
#define VL_SERVE_SERVER_H

#include <stdatomic.h>

#include <microhttpd.h>

#include "trainer/serve/jobs.h"

/* Connections beyond the first number are answered 503, beyond the second closed; a silent one is closed after so many
 * seconds, an upload that takes longer than UPLOAD seconds as well. */
enum { VL_SERVE_CONNECTIONS = 64, VL_SERVE_ACCEPTED = 192, VL_SERVE_SILENT = 15, VL_SERVE_UPLOAD = 120 };
enum { VL_SERVE_TOKEN = 256 };

struct vl_server {
    vl_serve_options options;
    char token[VL_SERVE_TOKEN];
    char host[3][64]; /* what a Host header may say */
    char url[VL_SERVE_TOKEN + 64];
    struct MHD_Daemon *daemon;
    vl_shelf shelf;
    vl_jobs jobs;
    pthread_mutex_t decoding; /* one picture at a time is looked at, so that many do not fill the memory */
    atomic_int connections;
    atomic_bool stopping;
};

/* Answers a request (MHD_AccessHandlerCallback), and frees what it held (MHD_RequestCompletedCallback). */
enum MHD_Result vl_http_answer(void *server, struct MHD_Connection *connection, const char *url, const char *method,
                               const char *version, const char *data, size_t *size, void **request);
void vl_http_completed(void *server, struct MHD_Connection *connection, void **request,
                       enum MHD_RequestTerminationCode why);
/* The events of a job, as they come (serve/events.c). */
enum MHD_Result vl_http_events(vl_server *server, struct MHD_Connection *connection, int64_t job);
/* A response with the headers that every one has. Takes nothing. */
enum MHD_Result vl_http_send(struct MHD_Connection *connection, unsigned status, struct MHD_Response *response,
                             const char *type);

#endif
