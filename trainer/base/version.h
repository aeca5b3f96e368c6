/* base/version.h - the version that CMake knows, for files and messages. */
#ifndef VL_BASE_VERSION_H
#define VL_BASE_VERSION_H

#ifndef VLENS_VERSION
#error "VLENS_VERSION comes from the build"
#endif

#endif
