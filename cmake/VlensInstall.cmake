# What is installed: the program, its plug-ins, the library for other programs (headers, pkg-config, CMake package), the
# manual page and completions (trainer/cli). Components: runtime, examples, mpi, cuda, development; cmake/VlensPackage.cmake makes
# one Debian package of each.
include(CMakePackageConfigHelpers)

# The program finds the library from its own place, so that a prefix can be moved.
file(RELATIVE_PATH VLENS_LIBDIR_FROM_BINDIR ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
set_target_properties(vlens_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${VLENS_LIBDIR_FROM_BINDIR}")
# OpenBLAS's OpenMP build is not where the loader looks first, where another build is the default.
get_filename_component(openblas_dir ${OPENBLAS_LIBRARY} DIRECTORY)
set_target_properties(vlens PROPERTIES INSTALL_RPATH "${openblas_dir}")

install(TARGETS vlens_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(TARGETS vlens EXPORT vlens
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)
install(DIRECTORY include/vlens DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
# The README's links lead to files that come with it.
install(FILES README.md CHANGELOG.md SECURITY.md CONTRIBUTING.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs COMPONENT runtime PATTERN data EXCLUDE)
install(DIRECTORY examples/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT development)
# What a fresh installation can be tried on: the demo model, its scenes, and its configuration with the paths of the prefix.
install(DIRECTORY data/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/vlens COMPONENT examples)
install(CODE "
  set(demo \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/vlens/demo\")
  file(READ \"${PROJECT_SOURCE_DIR}/configs/demo.yaml\" text)
  string(REPLACE \"Run from the root of the repository: vlens train configs/demo.yaml\" \"Writes ./out: vlens train \${demo}/demo.yaml\"
    text \"\${text}\")
  string(REPLACE \"data/demo\" \"\${demo}\" text \"\${text}\")
  file(WRITE \"\$ENV{DESTDIR}\${demo}/demo.yaml\" \"\${text}\")" COMPONENT examples)
# (libvlens_cuda.so: kernels/cuda)
if(TARGET vlens_mpi)
  install(TARGETS vlens_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/vlens COMPONENT mpi)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/vlens)
install(EXPORT vlens NAMESPACE vlens:: FILE vlensTargets.cmake DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(cmake/vlensConfig.cmake.in ${PROJECT_BINARY_DIR}/vlensConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/vlensConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/vlensConfig.cmake ${PROJECT_BINARY_DIR}/vlensConfigVersion.cmake
  DESTINATION ${package_dir} COMPONENT development)

# vlens.pc says where it lies by its own place, too.
file(RELATIVE_PATH VLENS_PREFIX_FROM_PC ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/vlens.pc.in ${PROJECT_BINARY_DIR}/vlens.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/vlens.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
