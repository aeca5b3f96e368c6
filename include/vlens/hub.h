/* vlens/hub.h - where the local Hugging Face cache may lie.
 *
 * The library never reads the environment: the program fills this from HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME
 * and HOME. A field that is NULL or empty is skipped. A model is looked for in this order, that of huggingface_hub
 * (src/huggingface_hub/constants.py), and the first place that has it is used:
 *     hf_hub_cache, hf_home/hub, xdg_cache_home/huggingface/hub, home/.cache/huggingface/hub */
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
