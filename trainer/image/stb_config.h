/* hf/stb_config.h - how stb_image is compiled in: PNG from memory, nothing that keeps state. */
#ifndef VL_HF_STB_CONFIG_H
#define VL_HF_STB_CONFIG_H

#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_FAILURE_STRINGS /* the strings are written to static memory, which two threads would share */

#include <stb_image.h>

#endif
