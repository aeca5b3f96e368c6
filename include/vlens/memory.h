/* vlens/memory.h - freeing what the library allocated for the caller. */
#ifndef VLENS_MEMORY_H
#define VLENS_MEMORY_H

#include <vlens/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Frees an array that a call of libvlens handed out as an out parameter. NULL is allowed. */
VL_API void vl_release(void *block);

#ifdef __cplusplus
}
#endif
#endif
