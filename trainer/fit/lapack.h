/* fit/lapack.h - the two LAPACK routines that the closed form needs, as Fortran symbols of OpenBLAS. */
#ifndef VL_FIT_LAPACK_H
#define VL_FIT_LAPACK_H

/* Cholesky factor of a symmetric positive definite matrix, in place; info > 0: not positive definite. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
/* Solves A X = B with that factor, B [n, nrhs] column by column, in place. */
void dpotrs_(const char *uplo, const int *n, const int *nrhs, const double *a, const int *lda, double *b,
             const int *ldb, int *info);

#endif
