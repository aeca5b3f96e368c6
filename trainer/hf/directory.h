/* hf/directory.h - a model directory of Hugging Face: found on disk or in the local hub cache, its weights opened. */
#ifndef VL_HF_DIRECTORY_H
#define VL_HF_DIRECTORY_H

#include <vlens/hub.h>

#include "trainer/base/status.h"
#include "trainer/hf/safetensors.h"

/* The directory that `model` names: a path to a directory, or a hub id "org/name" or "org/name@revision" in the
 * local cache (paths may be NULL: no cache). Needs config.json to be there. The caller frees *out with vl_free.
 * Errors: VL_EIO where there is none; the message says where it looked and which command fetches it. */
vl_status vl_hub_resolve(char **out, const char *model, const vl_hub_paths *paths, vl_error *err);

typedef struct vl_hf_tensor {
    const char *name;
    const vl_weight_view *view;
    bool read; /* set by whoever loads: the forward reads it */
} vl_hf_tensor;

typedef struct vl_hf_directory {
    char *path;
    vl_safetensors **shards; /* [n_shards] */
    size_t n_shards;
    vl_hf_tensor *tensors; /* [n_tensors], ascending by name */
    size_t n_tensors;
} vl_hf_directory;

/* Opens the weights under a directory as vl_hub_resolve gives it: model.safetensors, or (where there is
 * none) the shards of model.safetensors.index.json. Errors: VL_EIO (missing file), VL_EFORMAT (a bad file or index),
 * VL_EUNSUPPORTED (only pytorch_model.bin), VL_ENOMEM; a shard at fault is named. */
vl_status vl_hf_directory_open(vl_hf_directory **out, const char *path, vl_error *err);
void vl_hf_directory_close(vl_hf_directory *dir);

/* NULL where no shard has it. The name is the one in the file; model/weights.h finds names of every layout. */
const vl_weight_view *vl_hf_find(const vl_hf_directory *dir, const char *name);

/* Notes that the forward reads a tensor that vl_hf_find gave. */
void vl_hf_mark_read(const vl_hf_directory *dir, const char *name);

#endif
