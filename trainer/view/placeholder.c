typedef int vl_view_placeholder;
