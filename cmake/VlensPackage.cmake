# `cpack -G DEB` in a build folder: vlens, vlens-examples, libvlens-dev, and vlens-mpi and vlens-cuda where they were built.
# `make dist` packs the sources that git knows (tools/dist.sh).
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY TRUE) # packs what is built: the tests, say, need not be
set(CPACK_PACKAGE_NAME vlens)
set(CPACK_PACKAGE_VENDOR vlens)
set(VLENS_MAINTAINER "the vlens authors <vlens@localhost>" CACHE STRING "Name <address> in the Debian packages")
set(CPACK_PACKAGE_CONTACT "${VLENS_MAINTAINER}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime examples development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME vlens)
# dpkg-shlibdeps is satisfied by any BLAS; the OpenMP build is the one that shares the program's threads
set(CPACK_DEBIAN_RUNTIME_PACKAGE_DEPENDS libopenblas0-openmp)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SUGGESTS "vlens-examples, vlens-mpi, vlens-cuda")
set(CPACK_DEBIAN_EXAMPLES_PACKAGE_NAME vlens-examples)
set(CPACK_DEBIAN_EXAMPLES_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_EXAMPLES_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libvlens-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "vlens (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SHLIBDEPS OFF)
foreach(plugin mpi cuda)
  string(TOUPPER ${plugin} upper)
  if(TARGET vlens_${plugin})
    list(APPEND CPACK_COMPONENTS_ALL ${plugin})
    set(CPACK_DEBIAN_${upper}_PACKAGE_NAME vlens-${plugin})
    set(CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS "vlens (= ${PROJECT_VERSION}), libc6")
  endif()
endforeach()
set(CPACK_DEBIAN_MPI_PACKAGE_RECOMMENDS openmpi-bin)
# NVIDIA's libraries are not packages of Debian: the plug-in finds them when it is loaded, or vlens says what is missing
set(CPACK_DEBIAN_CUDA_PACKAGE_SHLIBDEPS OFF)

# vlens_debian(COMPONENT PACKAGE TEXT): what Debian's policy asks of every package: a description, the copyright, a changelog.
set(documents ${PROJECT_BINARY_DIR}/debian)
configure_file(cmake/debian/changelog.in ${documents}/changelog @ONLY)
execute_process(COMMAND gzip -9nkf ${documents}/changelog COMMAND_ERROR_IS_FATAL ANY)
function(vlens_debian component package text)
  string(TOUPPER ${component} upper)
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "${text}" PARENT_SCOPE)
  install(FILES cmake/debian/copyright ${documents}/changelog.gz DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package}
          COMPONENT ${component} EXCLUDE_FROM_ALL)
  install(FILES cmake/debian/overrides DESTINATION ${CMAKE_INSTALL_DATADIR}/lintian/overrides RENAME ${package}
          COMPONENT ${component} EXCLUDE_FROM_ALL)
endfunction()
vlens_debian(runtime vlens
"Shows at which layer, and at which patch of a picture, an answer of a model
takes shape. Runs a frozen model of a Hugging Face directory, keeps its hidden
states, fits one affine adapter per layer and measures it. This package has the
program, its library and its documents.")
vlens_debian(examples vlens-examples
"A small vision-language model, 640 rendered scenes with questions, and the
configuration of the demo: vlens train /usr/share/vlens/demo/demo.yaml")
vlens_debian(development libvlens-dev
"Headers, pkg-config and CMake files of libvlens, and examples in C.")
vlens_debian(mpi vlens-mpi
"The plug-in for several processes and machines: mpirun -n 4 vlens train ...")
vlens_debian(cuda vlens-cuda
"The plug-in for NVIDIA GPUs. It needs CUDA's own libraries.")
include(CPack)
