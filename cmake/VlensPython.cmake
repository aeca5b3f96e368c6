# The Python package (python/vlens): the program and the library inside it, bindings made from the public headers, and
# the demo model. Built by scikit-build-core (pyproject.toml), which installs the component "python" into the wheel.
# A wheel has no symbolic links: one file, named by its SONAME.
set_target_properties(vlens PROPERTIES VERSION 0)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(bindings ${PROJECT_BINARY_DIR}/python/vlens/_bindings.py)
file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/vlens/*.h)
add_custom_command(OUTPUT ${bindings}
  COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/python/build_bindings.py ${PROJECT_SOURCE_DIR}/include
          ${PROJECT_BINARY_DIR}/python
  DEPENDS ${PROJECT_SOURCE_DIR}/python/build_bindings.py ${headers}
  COMMENT "Python bindings from the public headers" VERBATIM)
add_custom_target(vlens_python DEPENDS ${bindings})
install(TARGETS vlens_cli RUNTIME DESTINATION vlens/bin COMPONENT python)
install(TARGETS vlens LIBRARY DESTINATION vlens/lib COMPONENT python NAMELINK_SKIP)
install(FILES ${bindings} DESTINATION vlens COMPONENT python)
install(DIRECTORY data/demo/ DESTINATION vlens/demo COMPONENT python)
