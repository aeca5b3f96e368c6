/* serve/shelf.h - what a server keeps: uploaded pictures in its temporary folder, and the last readings in memory. All
 * functions lock; texts that they give are copies. */
#ifndef VL_SERVE_SHELF_H
#define VL_SERVE_SHELF_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "trainer/base/status.h"
#include "trainer/base/str.h"

enum { VL_SHELF_PICTURES = 32, VL_SHELF_READINGS = 64 };

typedef struct vl_shelf_reading {
    int64_t id; /* 0: empty */
    char *title, *page, *json;
} vl_shelf_reading;

typedef struct vl_shelf {
    pthread_mutex_t lock;
    char folder[4096];
    int64_t pictures[VL_SHELF_PICTURES]; /* numbers, 0: empty; the oldest is overwritten */
    int64_t n_uploads, n_readings;
    vl_shelf_reading readings[VL_SHELF_READINGS];
    int keep; /* of them */
} vl_shelf;

/* Makes the temporary folder inside `parent`. */
vl_status vl_shelf_open(vl_shelf *shelf, const char *parent, int keep, vl_error *err);
/* Removes the folder with what is in it. */
void vl_shelf_close(vl_shelf *shelf);
/* A number and a path for a new upload; the upload of longest ago is removed where the shelf is full. */
int64_t vl_shelf_new_picture(vl_shelf *shelf);
void vl_shelf_picture_path(char path[4200], const vl_shelf *shelf, int64_t id);
/* False: there is no such picture (any more). */
bool vl_shelf_has_picture(vl_shelf *shelf, int64_t id);
void vl_shelf_drop_picture(vl_shelf *shelf, int64_t id);
/* Takes the three texts, also on failure. Returns the reading's number. */
int64_t vl_shelf_put(vl_shelf *shelf, char *title, char *page, char *json);
/* The page (or the JSON) of a reading, vl_free; NULL where it is gone. */
char *vl_shelf_get(vl_shelf *shelf, int64_t id, bool json);
/* [{"reading": 3, "title": "..."}], the newest first. */
void vl_shelf_list(vl_str *out, vl_shelf *shelf);

#endif
