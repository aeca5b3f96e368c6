/* vlens/error.h - how every call of libvlens reports failure.
 *
 * A call that can fail returns a vl_status and fills a caller-owned vl_error (which may be NULL).
 * The message is one line that names the file, tensor or key, with the expected and the found value.
 * On VL_OK the error is left untouched. The library never prints, exits or aborts on bad input. */
#ifndef VLENS_ERROR_H
#define VLENS_ERROR_H

#if defined(VLENS_STATIC) || !defined(__GNUC__)
#define VL_API
#else
#define VL_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vl_status {
    VL_OK = 0,
    VL_EINVAL,       /* a wrong argument, option or configuration key */
    VL_ENOMEM,       /* an allocation failed or a size overflowed */
    VL_EIO,          /* the operating system refused a read, write or open */
    VL_EFORMAT,      /* a file is not what its format says */
    VL_ESHAPE,       /* a tensor has another shape or type than the model needs */
    VL_EUNSUPPORTED, /* a real feature that vlens does not have; the message lists what it has */
    VL_EMISMATCH,    /* two things do not belong together (fingerprint, cache settings) */
    VL_EDEVICE,      /* the compute device is missing or failed */
    VL_ECANCELLED,   /* a progress callback asked to stop; a checkpoint was saved where one is promised */
    VL_EINTERNAL,    /* a bug in vlens */
    VL_EBUSY,        /* another run holds the output folder; the message says who, and since when */
    VL_ELENGTH       /* a sequence of more tokens than the model, or the caller, allows */
} vl_status;

enum { VL_ERROR_MESSAGE_SIZE = 512 };

typedef struct vl_error {
    vl_status status;
    char message[VL_ERROR_MESSAGE_SIZE]; /* one line, no newline, NUL-terminated */
} vl_error;

#define VL_ERROR_INIT                                                                                                  \
    {                                                                                                                  \
        VL_OK,                                                                                                         \
        {                                                                                                              \
            0                                                                                                          \
        }                                                                                                              \
    }

/* A short lower-case name of a status ("ok", "io error", ...). Never NULL. */
VL_API const char *vl_status_name(vl_status status);

#ifdef __cplusplus
}
#endif
#endif
