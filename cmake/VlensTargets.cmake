include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

# What the linker is asked for, of everything that is linked (tests/robust/hardening.sh looks at the result).
add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)

# What every test finds in its environment: a short spin at barriers, as the program sets it, for tests share their machine.
set(VLENS_TEST_ENVIRONMENT GOMP_SPINCOUNT=3000)
if(VLENS_SANITIZE STREQUAL thread)
  # ThreadSanitizer sees pthreads, not the barriers inside an OpenMP runtime. LLVM's runtime tells them to archer, which tells
  # TSan; gcc's tells nobody, and every parallel loop would be a race. oneDNN and OpenBLAS find the runtime loaded.
  if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "VLENS_SANITIZE=thread needs clang with its libomp (preset tsan)")
  endif()
  list(GET OpenMP_C_LIBRARIES 0 libomp)
  get_filename_component(libomp ${libomp} REALPATH)
  get_filename_component(libomp ${libomp} DIRECTORY)
  find_library(ARCHER_LIBRARY archer HINTS ${libomp} REQUIRED)
  # VLENS_GUARD_MIB: a process with little memory has no room for TSan's tables
  # exitcode: whatever the program says; the runtime's own accesses are no findings; half a second is kept for late reports
  list(APPEND VLENS_TEST_ENVIRONMENT OMP_TOOL_LIBRARIES=${ARCHER_LIBRARY} KMP_BLOCKTIME=0 VLENS_GUARD_MIB=0
    "TSAN_OPTIONS=ignore_noninstrumented_modules=1 exitcode=66 atexit_sleep_ms=500")
endif()

# One place for the flags that every target gets.
function(vlens_target_defaults target)
  target_compile_definitions(${target} PRIVATE _DEFAULT_SOURCE _POSIX_C_SOURCE=200809L
    VLENS_VERSION="${PROJECT_VERSION}")
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
    # gcc does not see that an out parameter is set whenever a vl_status is VL_OK
    $<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
    "$<$<C_COMPILER_ID:Clang>:-Wno-gnu-empty-struct;-Wno-pass-failed>"
    -fvisibility=hidden -fno-math-errno -ffp-contract=off
    -fstack-protector-strong $<$<BOOL:${VLENS_WERROR}>:-Werror>)
  if(VLENS_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${VLENS_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${VLENS_SANITIZE})
  elseif(NOT CMAKE_BUILD_TYPE STREQUAL Debug)
    target_compile_options(${target} PRIVATE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
  endif()
  if(VLENS_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

# vlens_layer(NAME SOURCES a.c b.c [LIBRARIES PkgConfig::X ...]): one layer as an object library.
# Its libraries are PUBLIC so that whoever links the objects links them too.
function(vlens_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES;INCLUDES" ${ARGN})
  add_library(vlens_${name} OBJECT ${ARG_SOURCES})
  vlens_target_defaults(vlens_${name})
  target_include_directories(vlens_${name} SYSTEM PRIVATE ${ARG_INCLUDES})
  target_link_libraries(vlens_${name} PUBLIC ${ARG_LIBRARIES} OpenMP::OpenMP_C Threads::Threads m)
endfunction()

# vlens_plugin(NAME SOURCES a.cu ... [LIBRARIES ...]): a backend as a shared object beside libvlens, with its own copy of
# what it uses of base: nothing of libvlens is exported for it.
function(vlens_plugin name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_library(${name} MODULE ${ARG_SOURCES})
  foreach(file status mem tensor)
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/trainer/base/${file}.c)
  endforeach()
  target_compile_definitions(${name} PRIVATE _DEFAULT_SOURCE _POSIX_C_SOURCE=200809L VLENS_VERSION="${PROJECT_VERSION}")
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES})
  set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR} C_VISIBILITY_PRESET hidden
    CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
endfunction()

# vlens_test(NAME LAYER fit SOURCES test_x.c [LABELS unit] [ARGS ...]): a cmocka program that links the objects
# of every layer up to LAYER, so that it sees internal functions too.
function(vlens_test name)
  cmake_parse_arguments(ARG "" "LAYER;TIMEOUT" "SOURCES;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  vlens_target_defaults(${name})
  target_compile_definitions(${name} PRIVATE VLENS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  foreach(layer ${VLENS_LAYERS})
    target_link_libraries(${name} PRIVATE vlens_${layer})
    if(layer STREQUAL ARG_LAYER)
      break()
    endif()
  endforeach()
  target_link_libraries(${name} PRIVATE cmocka)
  set_target_properties(${name} PROPERTIES BUILD_RPATH ${PROJECT_BINARY_DIR}) # where the plug-ins are
  if(ARG_LABELS MATCHES "^(base|unit|model)$")
    add_dependencies(check_programs ${name})
  endif()
  add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  if(VLENS_SANITIZE)
    math(EXPR ARG_TIMEOUT "6 * ${ARG_TIMEOUT}")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77
    ENVIRONMENT "${VLENS_TEST_ENVIRONMENT}")
endfunction()
