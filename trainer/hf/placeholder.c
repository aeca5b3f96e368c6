typedef int vl_hf_placeholder;
