/* kernels/plugin.h - backends that live in shared objects of their own, so that the library runs where theirs are not.
 */
#ifndef VL_KERNELS_PLUGIN_H
#define VL_KERNELS_PLUGIN_H

#include "kernels/backend.h"

/* Loads `file` ("libvlens_cuda.so") from the folder of this library, from vlens/ or ../lib/vlens/ beside it, or from
 * where the system looks, and returns its table. It stays loaded: CUDA's libraries cannot be unloaded safely.
 * Errors: VL_EDEVICE, with the reason. */
vl_status vl_plugin_load(const vl_backend **out, const char *file, vl_error *err);

/* Whether the system has an NVIDIA driver at all: cheap, while loading CUDA's libraries takes a while. */
bool vl_plugin_driver_present(void);

#endif
