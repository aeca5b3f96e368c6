/* model/model.h - an open model, as the rooms above and the families see it. */
#ifndef VL_MODEL_MODEL_H
#define VL_MODEL_MODEL_H

#include <vlens/model.h>

#include "trainer/hf/chat_template.h"
#include "trainer/hf/directory.h"
#include "trainer/model/decoder.h"
#include "trainer/model/head.h"
#include "trainer/model/spec.h"

struct vl_vision;

struct vl_model {
    char *path;
    vl_device *device; /* borrowed */
    vl_precision precision;
    vl_model_spec spec;
    vl_hf_directory *directory;
    vl_tokenizer *tokenizer;
    vl_chat_template *chat; /* NULL: none */
    vl_decoder decoder;
    struct vl_vision
        *vision; /* tower and connector of the spec; NULL where the family encodes by itself, or sees nothing */
    void *parts; /* of the family */
    struct vl_model_digest_job *digest; /* digest.h; NULL before it is asked for */
    vl_head_source head;                /* points into the directory, or at head_memory */
    void *head_memory[3];               /* norm weight, norm bias, head weight that are not as the file has them */
    const char **unread; /* [n_unread] tensors of the checkpoint that nothing reads; names of the directory */
    size_t n_unread;
    vl_model_info info;
};

#endif
