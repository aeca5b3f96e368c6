typedef int vl_model_placeholder;
