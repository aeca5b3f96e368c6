#include "trainer/serve/shelf.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vlens/memory.h>

#include "trainer/base/mem.h"

vl_status vl_shelf_open(vl_shelf *s, const char *parent, int keep, vl_error *err)
{
    pthread_mutex_init(&s->lock, NULL);
    s->keep = keep < 1 ? 1 : keep > VL_SHELF_READINGS ? VL_SHELF_READINGS : keep;
    int n = snprintf(s->folder, sizeof s->folder, "%s/vlens-serve-XXXXXX", parent);
    if (n < 0 || n >= (int)sizeof s->folder - 64 || !mkdtemp(s->folder)) { /* mode 0700 */
        s->folder[0] = '\0';
        return vl_fail_errno(err, VL_EIO, "%.200s: cannot make a temporary folder", parent);
    }
    return VL_OK;
}

void vl_shelf_picture_path(char path[4200], const vl_shelf *s, int64_t id)
{
    snprintf(path, 4200, "%s/%lld", s->folder, (long long)id); /* a number of ours: nothing of the client's is a name */
}

static void remove_picture(const vl_shelf *s, int64_t id)
{
    char path[4200];
    vl_shelf_picture_path(path, s, id);
    if (id)
        unlink(path);
}

static void clear_reading(vl_shelf_reading *r)
{
    vl_free(r->title);
    vl_release(r->page);
    vl_release(r->json);
    *r = (vl_shelf_reading){0};
}

void vl_shelf_close(vl_shelf *s)
{
    for (int i = 0; i < VL_SHELF_PICTURES; i++)
        remove_picture(s, s->pictures[i]);
    if (s->folder[0])
        rmdir(s->folder);
    for (int i = 0; i < VL_SHELF_READINGS; i++)
        clear_reading(&s->readings[i]);
    pthread_mutex_destroy(&s->lock);
}

int64_t vl_shelf_new_picture(vl_shelf *s)
{
    pthread_mutex_lock(&s->lock);
    int64_t id = ++s->n_uploads, *slot = &s->pictures[id % VL_SHELF_PICTURES];
    remove_picture(s, *slot);
    *slot = id;
    pthread_mutex_unlock(&s->lock);
    return id;
}

bool vl_shelf_has_picture(vl_shelf *s, int64_t id)
{
    pthread_mutex_lock(&s->lock);
    bool found = id > 0 && s->pictures[id % VL_SHELF_PICTURES] == id;
    pthread_mutex_unlock(&s->lock);
    return found;
}

void vl_shelf_drop_picture(vl_shelf *s, int64_t id)
{
    pthread_mutex_lock(&s->lock);
    if (id > 0 && s->pictures[id % VL_SHELF_PICTURES] == id) {
        remove_picture(s, id);
        s->pictures[id % VL_SHELF_PICTURES] = 0;
    }
    pthread_mutex_unlock(&s->lock);
}

int64_t vl_shelf_put(vl_shelf *s, char *title, char *page, char *json)
{
    pthread_mutex_lock(&s->lock);
    int64_t id = ++s->n_readings;
    vl_shelf_reading *slot = &s->readings[id % s->keep];
    clear_reading(slot);
    *slot = (vl_shelf_reading){id, title, page, json};
    pthread_mutex_unlock(&s->lock);
    return id;
}

char *vl_shelf_get(vl_shelf *s, int64_t id, bool json)
{
    pthread_mutex_lock(&s->lock);
    const vl_shelf_reading *slot = &s->readings[id > 0 ? id % s->keep : 0];
    char *copy = id > 0 && slot->id == id ? vl_strdup(json ? slot->json : slot->page) : NULL;
    pthread_mutex_unlock(&s->lock);
    return copy;
}

void vl_shelf_list(vl_str *out, vl_shelf *s)
{
    json_t *list = json_array();
    pthread_mutex_lock(&s->lock);
    for (int64_t id = s->n_readings; id > 0 && id > s->n_readings - s->keep; id--) {
        const vl_shelf_reading *slot = &s->readings[id % s->keep];
        if (slot->id == id)
            json_array_append_new(list, json_pack("{s:I, s:s}", "reading", (json_int_t)id, "title", slot->title));
    }
    pthread_mutex_unlock(&s->lock);
    char *text = json_dumps(list, JSON_COMPACT);
    vl_str_puts(out, text ? text : "[]");
    vl_free(text);
    json_decref(list);
}
