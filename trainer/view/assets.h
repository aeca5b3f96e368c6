/* view/assets.h - the files that a page is made of, embedded at build time (cmake/embed.cmake). */
#ifndef VL_VIEW_ASSETS_H
#define VL_VIEW_ASSETS_H

#include <stddef.h>

typedef struct vl_asset {
    const char *name; /* "page.css"; NULL ends the table */
    const char *data;
    size_t size;
} vl_asset;

extern const vl_asset vl_page_assets[];

#endif
