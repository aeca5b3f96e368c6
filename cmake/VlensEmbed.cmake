# vlens_embed(OUT file.c HEADER trainer/x/assets.h SYMBOL name FILES a.css b.js ...): files as a C table of bytes,
# written at build time and again whenever one of them changes.
function(vlens_embed)
  cmake_parse_arguments(ARG "" "OUT;HEADER;SYMBOL" "FILES" ${ARGN})
  set(script ${PROJECT_SOURCE_DIR}/cmake/embed.cmake)
  add_custom_command(
    OUTPUT ${ARG_OUT}
    COMMAND ${CMAKE_COMMAND} -DOUT=${ARG_OUT} -DHEADER=${ARG_HEADER} -DSYMBOL=${ARG_SYMBOL} "-DFILES=${ARG_FILES}"
            -P ${script}
    DEPENDS ${script} ${ARG_FILES}
    COMMENT "Embedding the files of ${ARG_SYMBOL}"
    VERBATIM)
endfunction()
