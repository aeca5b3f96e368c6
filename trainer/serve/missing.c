/* serve/missing.c - in the place of a server, where libmicrohttpd was not there to build with. */
#include <vlens/serve.h>

#include "trainer/base/status.h"

vl_status vl_server_start(vl_server **out, const vl_serve_options *options, vl_error *err)
{
    (void)options;
    *out = NULL;
    return vl_fail(err, VL_EUNSUPPORTED,
                   "this vlens was built without libmicrohttpd (libmicrohttpd-dev): it cannot serve");
}

const char *vl_server_url(const vl_server *server)
{
    (void)server;
    return "";
}

void vl_server_stop(vl_server *server)
{
    (void)server;
}
