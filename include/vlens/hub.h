/* vlens/hub.h - where the local Hugging Face cache may lie.
 *
 * The library never reads the environment: the program fills this from HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME
 * and HOME. A field that is NULL or empty is skipped. The first one that is set decides, as in huggingface_hub
 * (src/huggingface_hub/constants.py):
 *     hf_hub_cache, hf_home/hub, xdg_cache_home/huggingface/hub, home/.cache/huggingface/hub
 * Models of the later places are still found where the first does not have them. */
#ifndef VLENS_HUB_H
#define VLENS_HUB_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vl_hub_paths {
    const char *hf_hub_cache;
    const char *hf_home;
    const char *xdg_cache_home;
    const char *home;
} vl_hub_paths;

#ifdef __cplusplus
}
#endif
#endif
