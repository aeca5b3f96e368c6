typedef int vl_export_placeholder;
