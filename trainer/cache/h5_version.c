#include "trainer/cache/h5_version.h"

#include <hdf5.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

const char *vl_h5_version(void)
{
    return TEXT(H5_VERS_MAJOR) "." TEXT(H5_VERS_MINOR) "." TEXT(H5_VERS_RELEASE);
}
