/* vlens/serve.h - a model that stays loaded, behind a page: upload a picture, write a prompt, read every layer. One
 * question at a time on the device, the others wait; the pages are those of view.h. SECURITY.md says what is trusted.
 */
#ifndef VLENS_SERVE_H
#define VLENS_SERVE_H

#include <vlens/view.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_server vl_server;

typedef struct vl_serve_options { /* all borrowed until vl_server_stop */
    vl_model *model;
    vl_lens *const *lenses; /* [n_lenses], offered by name; the logit lens always is */
    const char *const *lens_names;
    int n_lenses;
    bool allow_other_model;
    const char *address; /* IPv4 to listen on; NULL: 127.0.0.1 */
    int port;            /* 0: any that is free */
    const char *token;   /* in every address, 16 characters or more; NULL: 128 random bits */
    const char *folder;  /* where the temporary folder for uploads is made; NULL: /tmp */
    int64_t max_upload;  /* bytes of a picture; 0: 32 MiB */
    int64_t max_pixels;  /* of a picture, as in vl_prompt */
    int keep;            /* readings that stay; 0: 8 */
} vl_serve_options;

/* Checks the lenses, listens, and answers from threads of its own. The caller stops it before the model or a lens is
 * closed. Errors: VL_EIO (the address or port cannot be listened on), VL_EINVAL, VL_EMISMATCH (a lens of another
 * model), VL_EUNSUPPORTED (built without libmicrohttpd). */
VL_API vl_status vl_server_start(vl_server **out, const vl_serve_options *options, vl_error *err);
/* "http://127.0.0.1:8765/TOKEN/". Borrowed. */
VL_API const char *vl_server_url(const vl_server *server);
/* Cancels what runs, closes every connection, removes the temporary folder. NULL is fine. */
VL_API void vl_server_stop(vl_server *server);

#ifdef __cplusplus
}
#endif
#endif
