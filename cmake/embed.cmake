# cmake -DOUT=file.c -DHEADER=x.h -DSYMBOL=name -DFILES="a;b" -P embed.cmake
# Writes the bytes of files as one C table `const vl_asset NAME[]`, ended by an entry without a name. A file is known
# by its last path component. Byte lists, because C11 compilers need not take string literals over 4095 characters.
set(tables "")
set(entries "")
set(number 0)
foreach(file IN LISTS FILES)
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  get_filename_component(name "${file}" NAME)
  string(APPEND tables "static const unsigned char bytes_${number}[] = {\n${bytes}0};\n\n")
  string(APPEND entries "    {\"${name}\", (const char *)bytes_${number}, sizeof bytes_${number} - 1},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUT}" "/* Written by cmake/embed.cmake. */\n#include \"${HEADER}\"\n\n${tables}const vl_asset ${SYMBOL}[] = {\n${entries}    {0, 0, 0},\n};\n")
