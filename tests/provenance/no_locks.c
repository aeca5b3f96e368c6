/* For LD_PRELOAD: a file system without locks, as network file systems may be. */
#include <errno.h>
#include <sys/file.h>

int flock(int fd, int operation);
int flock(int fd, int operation)
{
    (void)fd;
    (void)operation;
    errno = ENOLCK;
    return -1;
}
