/* cache/h5_version.h - which HDF5 the cache was built with, without showing hdf5.h to other layers. */
#ifndef VL_CACHE_H5_VERSION_H
#define VL_CACHE_H5_VERSION_H

/* "1.10.8". */
const char *vl_h5_version(void);

#endif
