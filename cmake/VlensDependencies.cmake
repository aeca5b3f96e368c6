# The libraries that vlens stands on (docs/ARCHITECTURE.md says what each is for). All are Debian packages:
# tools/install-deps.sh installs them.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)
pkg_check_modules(HDF5 REQUIRED IMPORTED_TARGET hdf5-serial)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
# WebP pictures: optional. Without it they are refused by name.
pkg_check_modules(WEBP IMPORTED_TARGET libwebp)
if(NOT WEBP_FOUND)
  message(STATUS "libwebp (libwebp-dev) is missing: WebP pictures are refused")
endif()
# The OpenMP build by name: a pthreads OpenBLAS would bring a second thread pool. It holds LAPACK too.
find_library(OPENBLAS_LIBRARY openblas PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp NO_DEFAULT_PATH REQUIRED)
find_path(DNNL_INCLUDE_DIR dnnl.h REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
# Several machines: optional. Without it the program runs as one process.
pkg_check_modules(MPI IMPORTED_TARGET ompi-c)
find_path(STB_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb REQUIRED)
