/* fit/lapack.h - the LAPACK routines that are needed, as Fortran symbols of OpenBLAS. */
#ifndef VL_FIT_LAPACK_H
#define VL_FIT_LAPACK_H

/* Cholesky factor of a symmetric positive definite matrix, in place; info > 0: not positive definite. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
/* Solves A X = B with that factor, B [n, nrhs] column by column, in place. */
void dpotrs_(const char *uplo, const int *n, const int *nrhs, const double *a, const int *lda, double *b,
             const int *ldb, int *info);

/* Singular value decomposition by divide and conquer; jobz "N": the values s alone, falling. lwork -1 asks for the best
 * length, given in work[0]; iwork is [8 min(m, n)]. */
void sgesdd_(const char *jobz, const int *m, const int *n, float *a, const int *lda, float *s, float *u, const int *ldu,
             float *vt, const int *ldvt, float *work, const int *lwork, int *iwork, int *info);

#endif
