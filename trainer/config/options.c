#include "trainer/config/options.h"

#include <stdio.h>
#include <string.h>

#define AT(member) offsetof(vl_config, member)
#define BIG        9e15 /* integers stay exact in a double */

/* What a key affects, short enough for a row of the table. */
enum {
    FORWARD = VL_AFFECTS_FORWARD,
    ROWS = VL_AFFECTS_ROWS,
    SPLIT = VL_AFFECTS_SPLIT,
    FIT = VL_AFFECTS_FIT,
    EVAL = VL_AFFECTS_EVAL,
    VIEW = VL_AFFECTS_VIEW,
    MACHINE = VL_AFFECTS_MACHINE
};

const vl_option vl_options[] = {
    {"model", VL_OPTION_TEXT, AT(model), FORWARD, "", NULL, 0, 0,
     "a Hugging Face directory, or a hub id in the local cache"},
    {"device", VL_OPTION_TEXT, AT(device), MACHINE, "auto", NULL, 0, 0, "auto | cpu | cuda | cuda:N"},
    {"precision", VL_OPTION_ENUM, AT(precision), FORWARD | FIT | EVAL | VIEW, "auto", "auto|exact|fast", 0, 0,
     "auto: bf16 GEMMs for BF16 weights, fp32 for others; exact: fp32; fast: bf16"},
    {"device_memory", VL_OPTION_BYTES, AT(device_memory), MACHINE, "0", NULL, 0, BIG,
     "memory of a GPU to use; 0: all that is free; weights beyond it are read from their file on every use"},
    {"threads", VL_OPTION_INT, AT(threads), MACHINE, "0", NULL, 0, 4096, "processor threads; 0: all"},
    {"output", VL_OPTION_TEXT, AT(output), MACHINE, "checkpoints/lens", NULL, 0, 0, "folder of the lens"},

    {"data.samples", VL_OPTION_TEXT, AT(data.samples), ROWS, "", NULL, 0, 0,
     "JSON lines or an array: prompt and answer, LLaVA or ShareGPT conversations, messages; or COCO captions"},
    {"data.format", VL_OPTION_ENUM, AT(data.format), ROWS, "auto", "auto|prompt|llava|sharegpt|messages|coco", 0, 0,
     "of data.samples; auto: by what it holds"},
    {"data.prompt", VL_OPTION_TEXT, AT(data.prompt), FORWARD, "", NULL, 0, 0,
     "what is asked of pictures that come with a caption only"},
    {"data.images", VL_OPTION_TEXT, AT(data.images), ROWS, "", NULL, 0, 0,
     "folder that image paths start from; empty: the folder of the JSONL"},
    {"data.text", VL_OPTION_TEXT, AT(data.text), ROWS, "", NULL, 0, 0, "a plain UTF-8 corpus instead of samples"},
    {"data.max_tokens", VL_OPTION_INT, AT(data.max_tokens), FORWARD, "0", NULL, 0, 1 << 24,
     "longest sample in tokens (0: the model's own limit); with data.text the length of a window (0: 512)"},
    {"data.max_samples", VL_OPTION_INT, AT(data.max_samples), SPLIT, "0", NULL, 0, BIG,
     "use the first N samples; 0: all"},
    {"data.heldout", VL_OPTION_DOUBLE, AT(data.heldout), SPLIT, "0.1", NULL, 0, 1,
     "share of the samples held out, split by image; never trained on"},
    {"data.seed", VL_OPTION_INT, AT(data.seed), SPLIT, "42", NULL, 0, BIG, "seed of the split"},
    {"data.template", VL_OPTION_ENUM, AT(data.chat_template), FORWARD, "auto", "auto|none", 0, 0,
     "auto: turns in the model's chat template; none: texts as they are"},
    {"data.template_date", VL_OPTION_TEXT, AT(data.template_date), FORWARD, "", NULL, 0, 0,
     "YYYY-MM-DD, told by chat templates that tell the model the date"},
    {"data.bad_samples", VL_OPTION_ENUM, AT(data.bad_samples), ROWS, "stop", "stop|skip", 0, 0,
     "samples that cannot be used. stop: list them all before anything is run; skip: leave them out and list them"},
    {"data.too_long", VL_OPTION_ENUM, AT(data.too_long), FORWARD, "stop", "stop|skip|truncate", 0, 0,
     "samples of more tokens than data.max_tokens or the model allow; truncate never cuts a picture"},
    {"data.exif", VL_OPTION_BOOL, AT(data.exif), FORWARD, "true", NULL, 0, 0,
     "turn pictures as their EXIF orientation says"},
    {"data.max_pixels", VL_OPTION_INT, AT(data.max_pixels), MACHINE, "64000000", NULL, 1, 178956970,
     "largest picture in pixels; decoding takes up to 16 bytes for each"},
    {"data.allow_outside", VL_OPTION_BOOL, AT(data.allow_outside), MACHINE, "false", NULL, 0, 0,
     "allow image paths that leave the image folder"},

    {"cache.dir", VL_OPTION_TEXT, AT(cache.dir), MACHINE, "", NULL, 0, 0,
     "folder of the activation cache; empty: <output>/cache"},
    {"cache.dtype", VL_OPTION_ENUM, AT(cache.dtype), ROWS, "auto", "auto|bfloat16|float16|float32", 0, 0,
     "type of the stored states; auto: bfloat16"},
    {"cache.max_bytes", VL_OPTION_BYTES, AT(cache.max_bytes), MACHINE, "40GiB", NULL, 0, BIG,
     "most bytes that the cache may take on the disk; 0: no bound"},
    {"cache.positions.text", VL_OPTION_COUNT, AT(cache.positions[VL_TEXT]), ROWS, "all", NULL, 0, BIG,
     "text positions kept per sample; all, or N chosen at random"},
    {"cache.positions.image", VL_OPTION_COUNT, AT(cache.positions[VL_IMAGE]), ROWS, "64", NULL, 0, BIG,
     "image patches kept per sample; all, or N chosen at random"},
    {"cache.positions.last", VL_OPTION_COUNT, AT(cache.positions[VL_LAST]), ROWS, "all", NULL, 0, BIG,
     "1 or all: keep the last prompt token; 0: leave it out"},
    {"cache.positions.generated", VL_OPTION_COUNT, AT(cache.positions[VL_GENERATED]), ROWS, "0", NULL, 0, 4096,
     "tokens generated greedily and kept per sample"},
    {"cache.positions.answer", VL_OPTION_COUNT, AT(cache.positions[VL_ANSWER]), ROWS, "all", NULL, 0, BIG,
     "positions of given answers kept per sample; all, or N chosen at random"},
    {"cache.seed", VL_OPTION_INT, AT(cache.seed), ROWS, "42", NULL, 0, BIG,
     "of the positions that are chosen at random"},
    {"cache.shard_tokens", VL_OPTION_INT, AT(cache.shard_tokens), MACHINE, "16384", NULL, 1, BIG,
     "rows per shard; an interrupted run loses at most one"},
    {"cache.batch_tokens", VL_OPTION_INT, AT(cache.batch_tokens), FORWARD, "2048", NULL, 1, BIG,
     "rows that share one pass over the weights"},

    {"lens.layers", VL_OPTION_LAYERS, AT(lens.first_layer), FIT, "all", NULL, 0, 0, "adapters to fit: all, N or N-M"},
    {"lens.kind", VL_OPTION_ENUM, AT(lens.kind), FIT, "affine", "affine|bias", 0, 0,
     "affine: matrix and bias; bias: bias alone"},
    {"lens.init", VL_OPTION_ENUM, AT(lens.init), FIT, "ridge", "ridge|zero|mean", 0, 0,
     "ridge: closed form towards the last state; zero: the logit lens; mean: bias of the mean difference"},
    {"lens.ridge", VL_OPTION_DOUBLE, AT(lens.ridge), FIT, "0", NULL, 0, 1e9,
     "ridge strength as a share of the mean second moment; 0: chosen on the validation part"},
    {"lens.loss", VL_OPTION_ENUM, AT(lens.loss), FIT, "kl", "kl|ce|reverse_kl|js", 0, 0,
     "objective: KL(model || lens), cross-entropy on the next token, KL(lens || model), Jensen-Shannon"},
    {"lens.targets", VL_OPTION_ENUM, AT(lens.targets), FIT, "own", "own|shuffled", 0, 0,
     "own: each row's own distribution; shuffled: another row's, a control that can learn nothing about its row"},
    {"lens.class_weights.text", VL_OPTION_DOUBLE, AT(lens.class_weights[VL_TEXT]), FIT, "1", NULL, 0, 1e6,
     "weight of the mean over text positions"},
    {"lens.class_weights.image", VL_OPTION_DOUBLE, AT(lens.class_weights[VL_IMAGE]), FIT, "1", NULL, 0, 1e6,
     "weight of the mean over image patches"},
    {"lens.class_weights.last", VL_OPTION_DOUBLE, AT(lens.class_weights[VL_LAST]), FIT, "1", NULL, 0, 1e6,
     "weight of the mean over last prompt tokens"},
    {"lens.class_weights.generated", VL_OPTION_DOUBLE, AT(lens.class_weights[VL_GENERATED]), FIT, "1", NULL, 0, 1e6,
     "weight of the mean over generated tokens"},
    {"lens.class_weights.answer", VL_OPTION_DOUBLE, AT(lens.class_weights[VL_ANSWER]), FIT, "1", NULL, 0, 1e6,
     "weight of the mean over tokens of given answers"},
    {"lens.skip_positions", VL_OPTION_INT, AT(lens.skip_positions), FIT, "0", NULL, 0, BIG,
     "positions at the start of each sample that are not trained on (attention sinks)"},

    {"fit.optimizer", VL_OPTION_ENUM, AT(fit.optimizer), FIT, "muon", "adam|sgd|muon", 0, 0,
     "adam | sgd (Nesterov) | muon (matrices; Adam for biases)"},
    {"fit.learning_rate", VL_OPTION_DOUBLE, AT(fit.learning_rate), FIT, "0", NULL, 0, 1e3,
     "0: sgd 0.1; muon 0.03 and adam 0.6 / width, times what the start leaves to do"},
    {"fit.momentum", VL_OPTION_DOUBLE, AT(fit.momentum), FIT, "0.9", NULL, 0, 1, "momentum of sgd and muon"},
    {"fit.weight_decay", VL_OPTION_DOUBLE, AT(fit.weight_decay), FIT, "0", NULL, 0, 1e3,
     "pulls the adapter towards 0, which is the logit lens"},
    {"fit.schedule", VL_OPTION_ENUM, AT(fit.schedule), FIT, "linear", "linear|constant|cosine", 0, 0,
     "how the learning rate falls to 0 (constant: it does not)"},
    {"fit.warmup", VL_OPTION_DOUBLE, AT(fit.warmup), FIT, "0.05", NULL, 0, 1,
     "share of the steps over which the learning rate first rises"},
    {"fit.clip", VL_OPTION_DOUBLE, AT(fit.clip), FIT, "1", NULL, 0, 1e9,
     "largest gradient norm of one layer; 0: no clipping"},
    {"fit.tokens_per_step", VL_OPTION_INT, AT(fit.tokens_per_step), FIT, "1024", NULL, 1, BIG, "rows of one step"},
    {"fit.steps", VL_OPTION_INT, AT(fit.steps), FIT, "0", NULL, 0, BIG, "steps; 0: as many as fit.epochs asks for"},
    {"fit.epochs", VL_OPTION_DOUBLE, AT(fit.epochs), FIT, "1", NULL, 0, 1e6, "passes over the training rows"},
    {"fit.tile_tokens", VL_OPTION_INT, AT(fit.tile_tokens), FIT, "1024", NULL, 1, 1 << 20,
     "rows whose teacher logits are held at once"},
    {"fit.read_ahead", VL_OPTION_BOOL, AT(fit.read_ahead), MACHINE, "true", NULL, 0, 0,
     "read the next rows in a second thread; gives the same lens"},
    {"fit.layers_in_flight", VL_OPTION_INT, AT(fit.layers_in_flight), MACHINE, "0", NULL, 0, 1024,
     "layers fitted in one pass over the cache; 0: all"},
    {"fit.seed", VL_OPTION_INT, AT(fit.seed), FIT, "42", NULL, 0, BIG, "seed of the order of the rows"},
    {"fit.validation", VL_OPTION_DOUBLE, AT(fit.validation), FIT, "0.05", NULL, 0, 0.9,
     "share of the training samples used only to choose ridge strength and stopping point"},
    {"fit.early_stop", VL_OPTION_BOOL, AT(fit.early_stop), FIT, "true", NULL, 0, 0,
     "keep, for each layer, the parameters that did best on the validation part"},
    {"fit.validate_every", VL_OPTION_INT, AT(fit.validate_every), FIT, "0", NULL, 0, BIG,
     "steps between validations; 0: ten a run, fewer in a short one"},
    {"fit.checkpoint_every", VL_OPTION_INTERVAL, AT(fit.checkpoint_every), MACHINE, "10min", NULL, 0, BIG,
     "time between checkpoints (10min, 30s, 2h), or steps; 0: only when interrupted"},

    {"eval.metrics", VL_OPTION_SET, AT(eval.metrics), EVAL, "kl,ce,entropy,top1,top5",
     "kl|ce|entropy|top1|top5|rank|js|tv|bias|ece", 0, 0, "columns of the tables; bias and ece take extra time"},
    {"eval.bootstrap", VL_OPTION_INT, AT(eval.bootstrap), EVAL, "1000", NULL, 0, 1000000,
     "resamples (of images) behind the 95 % intervals; 0: none"},
    {"eval.seed", VL_OPTION_INT, AT(eval.seed), EVAL, "42", NULL, 0, BIG, "seed of the bootstrap"},
    {"eval.max_tokens", VL_OPTION_INT, AT(eval.max_tokens), EVAL, "0", NULL, 0, BIG, "held-out rows used; 0: all"},
    {"eval.first_positions", VL_OPTION_INT, AT(eval.first_positions), EVAL, "0", NULL, 0, BIG,
     "report rows at the first N positions as a class of their own, first (attention sinks)"},
    {"eval.wrong_picture", VL_OPTION_BOOL, AT(eval.wrong_picture), EVAL, "true", NULL, 0, 0,
     "control: states of one picture against the model's answer to another with the same prompt"},
    {"eval.split", VL_OPTION_ENUM, AT(eval.split), EVAL, "heldout", "heldout|train", 0, 0,
     "heldout: samples the lens never saw; train: those it was fitted on, which shows how much it memorised"},
    {"eval.baseline", VL_OPTION_TEXT, AT(eval.baseline), EVAL, "", NULL, 0, 0,
     "folder of a second lens shown beside this one, for example a bias-only lens"},

    {"fidelity.layers", VL_OPTION_INT, AT(fidelity.layers), EVAL, "6", NULL, 0, 4096,
     "states that vlens fidelity looks at, evenly spaced; 0: all"},
    {"fidelity.directions", VL_OPTION_INT, AT(fidelity.directions), EVAL, "16", NULL, 2, 4096,
     "directions that are found and ablated at each state"},
    {"fidelity.samples", VL_OPTION_INT, AT(fidelity.samples), EVAL, "16", NULL, 1, 65536, "held-out samples"},
    {"fidelity.max_rows", VL_OPTION_INT, AT(fidelity.max_rows), EVAL, "512", NULL, 2, 1 << 20,
     "text rows measured, of all samples together"},
    {"fidelity.max_tokens", VL_OPTION_INT, AT(fidelity.max_tokens), EVAL, "128", NULL, 2, 1 << 20,
     "length of a window of data.text"},
    {"fidelity.ablation", VL_OPTION_ENUM, AT(fidelity.ablation), EVAL, "mean", "mean|resample", 0, 0,
     "what replaces a row along a direction: the mean of its kind, or another row"},
    {"fidelity.control", VL_OPTION_TEXT, AT(fidelity.control), EVAL, "", NULL, 0, 0,
     "folder of a second lens as control, for example one fitted with lens.targets: shuffled"},
    {"fidelity.transfer_rows", VL_OPTION_INT, AT(fidelity.transfer_rows), EVAL, "512", NULL, 0, 1 << 20,
     "held-out rows on which the adapter of each state reads every other state; 0: leave it out"},
    {"fidelity.objects", VL_OPTION_TEXT, AT(fidelity.objects), EVAL, "", NULL, 0, 0,
     "JSONL with the patches of each object; those asked about are replaced at the input (token ablation)"},
    {"fidelity.object_samples", VL_OPTION_INT, AT(fidelity.object_samples), EVAL, "64", NULL, 1, 65536,
     "held-out pictures of the token ablation"},

    {"study.samples", VL_OPTION_TEXT, AT(study.samples), VIEW, "", NULL, 0, 0,
     "JSONL of what vlens study asks: prompt, optional image and answer"},
    {"study.images", VL_OPTION_TEXT, AT(study.images), VIEW, "", NULL, 0, 0,
     "folder that its image paths start from; empty: the folder of the JSONL"},
    {"study.dir", VL_OPTION_TEXT, AT(study.dir), VIEW, "", NULL, 0, 0,
     "folder of its pages, graphs and tables; empty: <output>/study"},
    {"study.k", VL_OPTION_INT, AT(study.k), VIEW, "5", NULL, 1, 1000, "tokens shown for each state"},
    {"study.generate", VL_OPTION_INT, AT(study.generate), VIEW, "16", NULL, 0, 4096,
     "tokens that the model adds to a prompt"},
    {"study.fidelity", VL_OPTION_BOOL, AT(study.fidelity), VIEW, "false", NULL, 0, 0,
     "also measure what vlens fidelity does, and show it (takes long)"},
};
const int vl_options_count = (int)(sizeof vl_options / sizeof vl_options[0]);

const vl_option *vl_option_find(const char *key)
{
    for (int i = 0; i < vl_options_count; i++)
        if (!strcmp(vl_options[i].key, key))
            return &vl_options[i];
    return NULL;
}

/* Levenshtein distance, capped at the length of the rows below. */
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    int row[LONGEST + 1], n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST + n + m;
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[m];
}

const char *vl_option_nearest(const char *key)
{
    const char *best = vl_options[0].key;
    int best_distance = 1 << 30;
    for (int i = 0; i < vl_options_count; i++) {
        int distance = edit_distance(key, vl_options[i].key);
        /* someone who writes "loss" means "lens.loss": compare with the last part too */
        const char *dot = strrchr(vl_options[i].key, '.');
        int last_part = dot ? edit_distance(key, dot + 1) : distance;
        distance = last_part < distance ? last_part : distance;
        if (distance < best_distance) {
            best_distance = distance;
            best = vl_options[i].key;
        }
    }
    return best;
}

int vl_option_count(void)
{
    return vl_options_count;
}

static const char *type_text(const vl_option *option)
{
    switch (option->type) {
    case VL_OPTION_TEXT: return "text";
    case VL_OPTION_INT: return "integer";
    case VL_OPTION_COUNT: return "integer or all";
    case VL_OPTION_BYTES: return "bytes (MiB, GiB, ...)";
    case VL_OPTION_DOUBLE: return "number";
    case VL_OPTION_BOOL: return "true or false";
    case VL_OPTION_ENUM: return option->names;
    case VL_OPTION_SET: return option->names;
    case VL_OPTION_INTERVAL: return "time (s, min, h) or steps";
    case VL_OPTION_LAYERS: return "all, N or N-M";
    }
    return "";
}

vl_option_info vl_option_get(int index)
{
    const vl_option *option = &vl_options[index];
    return (vl_option_info){option->key, type_text(option), option->initial, option->help, option->affects};
}

const char *vl_affects_name(vl_affects bit)
{
    static const char *const names[VL_AFFECTS_COUNT] = {"forward", "rows", "split", "fit", "eval", "view", "machine"};
    for (int i = 0; i < VL_AFFECTS_COUNT; i++)
        if ((unsigned)bit == 1u << i)
            return names[i];
    return "";
}
