typedef int vl_eval_placeholder;
