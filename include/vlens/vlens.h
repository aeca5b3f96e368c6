/* vlens/vlens.h - everything: model directory in, evaluated lens out.
 *
 *     vl_device_open   where arithmetic runs
 *     vl_model_open    a frozen model                        (model.h, tokenizer.h, hub.h)
 *     vl_cache_build   its states on disk                    (cache.h)
 *     vl_fit_run       one affine adapter per state          (fit.h)
 *     vl_eval_run      how well they predict, held out       (eval.h)
 *     vl_lens_export   for other tools                       (export.h)
 *     vl_reading_*     what each layer would say             (view.h)
 *     vl_figure_*      figures for papers                    (figure.h)
 *     vl_bench_*       how fast this machine is at it        (bench.h)
 *
 * All of it is steered by one vl_config (config.h). Errors: error.h. */
#ifndef VLENS_VLENS_H
#define VLENS_VLENS_H

#include <vlens/cache.h>
#include <vlens/config.h>
#include <vlens/conversation.h>
#include <vlens/device.h>
#include <vlens/error.h>
#include <vlens/agree.h>
#include <vlens/eval.h>
#include <vlens/export.h>
#include <vlens/fit.h>
#include <vlens/fidelity.h>
#include <vlens/figure.h>
#include <vlens/hub.h>
#include <vlens/lens.h>
#include <vlens/memory.h>
#include <vlens/metric.h>
#include <vlens/model.h>
#include <vlens/progress.h>
#include <vlens/samples.h>
#include <vlens/serve.h>
#include <vlens/study.h>
#include <vlens/team.h>
#include <vlens/tensor.h>
#include <vlens/tokenizer.h>
#include <vlens/version.h>
#include <vlens/view.h>

#endif
