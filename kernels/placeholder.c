typedef int vl_kernels_placeholder;
