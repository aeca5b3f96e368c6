typedef int vl_cache_placeholder;
