typedef int vl_fit_placeholder;
