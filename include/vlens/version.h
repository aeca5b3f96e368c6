/* vlens/version.h - which vlens this is, and what it was built with. */
#ifndef VLENS_VERSION_H
#define VLENS_VERSION_H

#include <vlens/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0". */
VL_API const char *vl_version(void);

typedef struct vl_component {
    const char *name;    /* "HDF5" */
    const char *version; /* "1.10.8", as the loaded library says */
    const char *purpose; /* "activation cache" */
} vl_component;

/* Libraries in use, index 0..vl_component_count()-1. */
VL_API int vl_component_count(void);
VL_API vl_component vl_component_get(int index);

#ifdef __cplusplus
}
#endif
#endif
