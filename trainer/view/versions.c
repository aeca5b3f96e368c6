/* What this library was built with. oneDNN stands in the description of the CPU device. */
#include <vlens/version.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <utf8proc.h>
#include <yaml.h>

#include "trainer/base/version.h"
#include "trainer/cache/h5_version.h"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

const char *vl_version(void)
{
    return VLENS_VERSION;
}

int vl_component_count(void)
{
    return 5;
}

vl_component vl_component_get(int index)
{
    switch (index) {
    case 0: return (vl_component){"HDF5", vl_h5_version(), "activation cache"};
    case 1: return (vl_component){"jansson", jansson_version_str(), "JSON"};
    case 2: return (vl_component){"libyaml", yaml_get_version_string(), "configuration"};
    case 3: return (vl_component){"PCRE2", TEXT(PCRE2_MAJOR) "." TEXT(PCRE2_MINOR), "tokenizer"};
    case 4: return (vl_component){"utf8proc", utf8proc_version(), "tokenizer"};
    default: return (vl_component){"", "", ""};
    }
}
