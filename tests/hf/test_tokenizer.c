/* Ids and texts equal to Hugging Face's `tokenizers` 0.20.3: on vector files, on every component by itself, and that
 * hostile files and texts end in errors. */
#include "tests/support/temp_folder.h"

#include <vlens/tokenizer.h>

#include "trainer/base/file.h"
#include "trainer/base/json.h"
#include "trainer/base/mem.h"
#include "trainer/base/str.h"

/* ---- helpers ---- */

static vl_tokenizer *open_ok(const char *folder)
{
    vl_tokenizer *tokenizer = NULL;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_tokenizer_open(&tokenizer, folder, &err);
    if (status != VL_OK)
        fail_msg("%s: %s", folder, err.message);
    return tokenizer;
}

static void check_ids(const vl_tokenizer *tokenizer, const char *text, size_t size, bool special, const int32_t *ids,
                      int64_t n)
{
    vl_token_ids got;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_tokenizer_encode(&got, tokenizer, text, size, special, &err);
    if (status != VL_OK)
        fail_msg("\"%s\": %s", text, err.message);
    bool equal = got.n == n && (n == 0 || memcmp(got.ids, ids, (size_t)n * sizeof *ids) == 0);
    if (!equal) {
        vl_str line = VL_STR_INIT;
        for (int64_t i = 0; i < got.n; i++)
            vl_str_printf(&line, " %d", got.ids[i]);
        vl_str_puts(&line, ", expected");
        for (int64_t i = 0; i < n; i++)
            vl_str_printf(&line, " %d", ids[i]);
        print_error("\"%s\":%s\n", text, line.data);
        vl_str_clear(&line);
    }
    vl_release(got.ids);
    assert_true(equal);
}

static void check_text(const vl_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip, const char *text,
                       size_t size)
{
    vl_decoded got;
    vl_error err = VL_ERROR_INIT;
    vl_status status = vl_tokenizer_decode(&got, tokenizer, ids, n, skip, &err);
    if (status != VL_OK)
        fail_msg("%s", err.message);
    bool equal = got.n_bytes == size && memcmp(got.text, text, size) == 0;
    if (!equal)
        print_error("decoded \"%s\", expected \"%s\"\n", got.text, text);
    vl_release(got.text);
    assert_true(equal);
}

/* ---- vector files ---- */

static int32_t *read_ids(const json_t *list, int64_t *n)
{
    assert_true(json_is_array(list));
    *n = (int64_t)json_array_size(list);
    int32_t *ids = vl_alloc((size_t)*n, sizeof *ids);
    assert_non_null(ids);
    for (int64_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return ids;
}

/* `whole`: "decoded" was made from "ids", else from "ids_nospecial". */
static void check_vector(const vl_tokenizer *tokenizer, const json_t *vector, bool whole)
{
    int64_t n, n_plain;
    int32_t *ids = read_ids(json_object_get(vector, "ids"), &n);
    int32_t *plain = read_ids(json_object_get(vector, "ids_nospecial"), &n_plain);
    const json_t *text = json_object_get(vector, "text"), *decoded = json_object_get(vector, "decoded");
    const json_t *skip = json_object_get(vector, "decoded_skip");
    check_ids(tokenizer, json_string_value(text), json_string_length(text), true, ids, n);
    check_ids(tokenizer, json_string_value(text), json_string_length(text), false, plain, n_plain);
    check_text(tokenizer, whole ? ids : plain, whole ? n : n_plain, false, json_string_value(decoded),
               json_string_length(decoded));
    if (skip)
        check_text(tokenizer, ids, n, true, json_string_value(skip), json_string_length(skip));
    vl_free(ids);
    vl_free(plain);
}

static void check_vectors(const char *folder, const char *vectors, bool whole)
{
    char *lines = NULL;
    vl_error err = VL_ERROR_INIT;
    int n = 0;
    double start = vl_clock();
    vl_tokenizer *tokenizer = open_ok(folder);
    double opened = vl_clock() - start;
    if (vl_file_read(&lines, NULL, vectors, (size_t)16 << 20, &err) != VL_OK)
        fail_msg("%s", err.message);
    for (char *line = lines, *end; *line; line = end + 1, n++) {
        json_t *vector;
        end = strchr(line, '\n');
        assert_non_null(end);
        if (vl_json_parse(&vector, line, (size_t)(end - line), vectors, &err) != VL_OK)
            fail_msg("%s", err.message);
        check_vector(tokenizer, vector, whole);
        json_decref(vector);
    }
    print_message("%d vectors equal: %s (opened in %.0f ms)\n", n, folder, 1e3 * opened);
    assert_true(n > 0);
    vl_free(lines);
    vl_tokenizer_close(tokenizer);
}

#define FIXTURES VLENS_SOURCE_DIR "/tests/golden/fixtures/"

static void fixtures(void **state)
{
    (void)state;
    json_t *index;
    vl_error err = VL_ERROR_INIT;
    const char *vectors;
    const json_t *file;
    if (vl_json_read(&index, FIXTURES "tokenizers/index.json", 1 << 20, &err) != VL_OK)
        fail_msg("%s", err.message);
    assert_true(json_object_size(index) > 0);
    json_object_foreach(index, vectors, file)
    {
        char path[TEMP_PATH_SIZE], folder[TEMP_PATH_SIZE];
        temp_path(path, FIXTURES "tokenizers", vectors);
        temp_path(folder, FIXTURES, json_string_value(file));
        *strrchr(folder, '/') = 0; /* index.json names tokenizer.json itself */
        check_vectors(folder, path, true);
    }
    json_decref(index);
}

static void outside_data(void **state)
{
    (void)state;
    const char *shared = getenv("VLENS_SHARED_DATA"), *real = getenv("VLENS_REAL_DIR");
    if (!shared) {
        print_message("VLENS_SHARED_DATA is not set: vectors of real tokenizers not run\n");
        return;
    }
    static const struct {
        const char *folder, *vectors;
    } sets[] = {{"tokenizers/llama2", "llama2"},
                {"tokenizers/llava15", "llava15"},
                {"tokenizers/llama3-text", "llama3-text"},
                {"real/stories260k", "stories260k"}};
    char folder[TEMP_PATH_SIZE], vectors[TEMP_PATH_SIZE];
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        temp_path(folder, shared, sets[i].folder);
        snprintf(vectors, sizeof vectors, "%s/tokenizers/vectors/%s.jsonl", shared, sets[i].vectors);
        check_vectors(folder, vectors, false);
    }
    if (real) {
        temp_path(folder, real, "smollm2-135m");
        temp_path(vectors, shared, "tokenizers/vectors/smollm2-135m.jsonl");
        check_vectors(folder, vectors, false);
    } else {
        print_message("VLENS_REAL_DIR is not set: SmolLM2 not run\n");
    }
}

/* ---- components ---- */

/* JSON below is written with ' for ". The vocabulary, ids from 0: */
#define VOCAB                                                                                                          \
    "{'<unk>':0,'a':1,'b':2,'c':3,'A':4,'B':5,' ':6,'▁':7,'Ġ':8,',':9,'1':10,'2':11,'ab':12,'bc':13,'▁a':14,"     \
    "'abc':15,'é':16,'e':17,'\u0301':18,'Ã':19,'©':20}"
#define MERGES "[['a','b'],['b','c'],['▁','a'],['ab','c']]"
#define MODEL  "'type':'BPE','unk_token':'<unk>','vocab':" VOCAB ",'merges':" MERGES

#define SPLIT_B(behavior) "{'type':'Split','pattern':{'String':'b'},'behavior':'" behavior "'}"
#define METASPACE(scheme) "{'type':'Metaspace','replacement':'▁','prepend_scheme':'" scheme "','split':true}"
#define STRIP(l, r)       "{'type':'Strip','strip_left':" l ",'strip_right':" r "}"
#define LEGACY_PREFIX     "{'type':'Prepend','prepend':'▁'},{'type':'Replace','pattern':{'String':' '},'content':'▁'}"

typedef struct component {
    const char *normalizer, *splitter, *added, *text;
    int32_t ids[16]; /* to -1; what `tokenizers` 0.20.3 gives */
} component;

static const component components[] = {
    {NULL, NULL, NULL, "abcab cz", {15, 12, 6, 3, 0, -1}},
    {"{'type':'Prepend','prepend':'▁'}", NULL, NULL, "ab", {7, 12, -1}},
    {"{'type':'Prepend','prepend':'▁'}", NULL, NULL, "", {-1}},
    {"{'type':'Sequence','normalizers':[" LEGACY_PREFIX "]}",
     NULL,
     "{'id':21,'content':'<t>'}",
     "a a<t>a<t>",
     {14, 14, 21, 14, 21, -1}},
    {"{'type':'Replace','pattern':{'Regex':'[bB]+'},'content':'c'}", NULL, NULL, "abBba", {1, 3, 1, -1}},
    {"{'type':'Replace','pattern':{'Regex':'(?=b)'},'content':','}", NULL, NULL, "abab", {1, 9, 2, 1, 9, 2, -1}},
    {"{'type':'NFC'}", NULL, NULL, "e\u0301é", {16, 16, -1}},
    {"{'type':'NFD'}", NULL, NULL, "e\u0301é", {17, 18, 17, 18, -1}},
    {"{'type':'NFKC'}", NULL, NULL, "①²", {10, 11, -1}},
    {"{'type':'Lowercase'}", NULL, NULL, "ABCÉ", {15, 16, -1}},
    {STRIP("true", "false"), NULL, NULL, "  a  ", {1, 6, 6, -1}},
    {STRIP("false", "true"), NULL, NULL, "\u3000 a \u3000", {0, 6, 1, -1}},
    {NULL, SPLIT_B("Isolated"), NULL, "abbcabc", {1, 2, 2, 3, 1, 2, 3, -1}},
    {NULL, SPLIT_B("Removed"), NULL, "abbcabc", {1, 3, 1, 3, -1}},
    {NULL, SPLIT_B("MergedWithPrevious"), NULL, "abbcabc", {12, 2, 3, 12, 3, -1}},
    {NULL, SPLIT_B("MergedWithNext"), NULL, "abbcabc", {1, 2, 13, 1, 13, -1}},
    {NULL, SPLIT_B("Contiguous"), NULL, "abbcabc", {1, 2, 2, 3, 1, 2, 3, -1}},
    {NULL, SPLIT_B("Removed','invert':true,'x':'"), NULL, "abbcabc", {2, 2, 2, -1}},
    {NULL, SPLIT_B("MergedWithPrevious','invert':true,'x':'"), NULL, "abbcabc", {1, 2, 13, 1, 13, -1}},
    {NULL,
     "{'type':'Split','pattern':{'Regex':'\\\\s|^b|c$'},'behavior':'Isolated'}",
     NULL,
     "bc\nbc a",
     {2, 3, 0, 2, 3, 6, 1, -1}},
    {NULL, "{'type':'Digits','individual_digits':true}", NULL, "ab12ab", {12, 10, 11, 12, -1}},
    {NULL, "{'type':'Digits'}", NULL, "a12b²½b", {1, 10, 11, 2, 0, 0, 2, -1}},
    {NULL, METASPACE("first"), "{'id':21,'content':'<t>'}", "a a<t>a", {14, 14, 21, 1, -1}},
    {NULL, METASPACE("always"), "{'id':21,'content':'<t>'}", "a a<t>a", {14, 14, 21, 14, -1}},
    {NULL, METASPACE("never"), "{'id':21,'content':'<t>'}", "a a<t> a", {1, 14, 21, 14, -1}},
    {NULL, "{'type':'Metaspace','replacement':'▁','add_prefix_space':false}", NULL, "a a", {1, 14, -1}},
    {STRIP("true", "false"), METASPACE("first"), NULL, "  a", {1, -1}},
    {NULL,
     "{'type':'Sequence','pretokenizers':[" SPLIT_B("Isolated") "," METASPACE("first") "]}",
     NULL,
     "ab a",
     {14, 2, 14, -1}},
    {NULL, "{'type':'ByteLevel','use_regex':true}", NULL, "a é ab", {8, 1, 8, 19, 20, 8, 12, -1}},
    {NULL,
     "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}",
     NULL,
     "a é ab",
     {1, 8, 19, 20, 8, 12, -1}},
    {NULL, NULL, "{'id':2,'content':'b','single_word':true}", "b ab b,b_ b", {2, 6, 12, 6, 2, 9, 2, 0, 6, 2, -1}},
    {NULL, NULL, "{'id':21,'content':'<t>','lstrip':true}", "a  <t>  b", {1, 21, 6, 6, 2, -1}},
    {NULL, NULL, "{'id':21,'content':'<t>','rstrip':true}", "a  <t>  b", {1, 6, 6, 21, 2, -1}},
    {NULL,
     NULL,
     "{'id':21,'content':'<t>','lstrip':true,'rstrip':true}",
     "a <t> \u2003<t>\u2003 b",
     {1, 21, 21, 2, -1}},
    {NULL,
     NULL,
     "{'id':21,'content':'<t>'},{'id':22,'content':'<t>a'},{'id':23,'content':'a<t>'}",
     "a<t>a<t>ab<t",
     {23, 23, 12, 0, 0, -1}},
    {"{'type':'Lowercase'}", NULL, "{'id':21,'content':'AB','normalized':true}", "abABaB", {21, 21, 21, -1}},
    {"{'type':'Lowercase'}", NULL, "{'id':21,'content':'AB'}", "abABaB", {12, 21, 12, -1}},
};

/* Writes FOLDER/tokenizer.json with ' as ". */
static void write_file(const char *folder, const char *json)
{
    char *text = vl_strdup(json);
    assert_non_null(text);
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    temp_text(folder, "tokenizer.json", text);
    vl_free(text);
}

static void write_component(const char *folder, const component *c)
{
    vl_str json = VL_STR_INIT;
    vl_str_printf(&json, "{'normalizer':%s,'pre_tokenizer':%s,'added_tokens':[%s],'model':{%s}}",
                  c->normalizer ? c->normalizer : "null", c->splitter ? c->splitter : "null", c->added ? c->added : "",
                  MODEL);
    assert_false(json.failed);
    write_file(folder, json.data);
    vl_str_clear(&json);
}

static void each_component(void **state)
{
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        const component *c = &components[i];
        int64_t n = 0;
        while (c->ids[n] >= 0)
            n++;
        write_component(*state, c);
        vl_tokenizer *tokenizer = open_ok(*state);
        check_ids(tokenizer, c->text, strlen(c->text), true, c->ids, n);
        vl_tokenizer_close(tokenizer);
    }
}

static void model_options(void **state)
{
    static const struct {
        const char *model, *text;
        int32_t ids[8];
    } cases[] = {{MODEL ",'fuse_unk':true", "zza zz", {0, 1, 6, 0, -1}},
                 {MODEL ",'fuse_unk':false", "zza", {0, 0, 1, -1}},
                 {"'vocab':" VOCAB ",'merges':" MERGES, "azb", {12, -1}},
                 {MODEL ",'ignore_merges':true", "▁abc", {7, 15, -1}},
                 {"'vocab':" VOCAB ",'merges':['a b','b c','▁ a']", "▁abc", {7, 12, 3, -1}},
                 {"'byte_fallback':true,'vocab':{'a':0,'<0xC3>':1,'<0x89>':2},'merges':[]", "aÉaÊ", {0, 1, 2, 0, -1}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vl_str json = VL_STR_INIT;
        int64_t n = 0;
        while (cases[i].ids[n] >= 0)
            n++;
        vl_str_printf(&json, "{'model':{%s}}", cases[i].model);
        write_file(*state, json.data);
        vl_str_clear(&json);
        vl_tokenizer *tokenizer = open_ok(*state);
        check_ids(tokenizer, cases[i].text, strlen(cases[i].text), true, cases[i].ids, n);
        vl_tokenizer_close(tokenizer);
    }
}

static void each_decoder(void **state)
{
    static const struct {
        const char *decoder;
        int32_t ids[8];
        const char *text;
    } cases[] = {
        {"null", {12, 3, -1}, "ab c"},
        {"{'type':'ByteLevel'}", {8, 19, 20, 1, 19, -1}, " éa\ufffd"},
        {METASPACE("first"), {14, 14, 7, -1}, "a a "},
        {METASPACE("never"), {14, 14, -1}, " a a"},
        {"{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'▁'},'content':' '},{'type':'Fuse'},"
         "{'type':'Strip','content':' ','start':1,'stop':0}]}",
         {14, 14, -1},
         "a a"},
        {"{'type':'Strip','content':'a','start':1,'stop':0}", {1, 12, 2, -1}, "bb"},
        {"{'type':'Replace','pattern':{'Regex':'b+'},'content':'c'}", {12, 2, -1}, "acc"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vl_str json = VL_STR_INIT;
        int64_t n = 0;
        while (cases[i].ids[n] >= 0)
            n++;
        vl_str_printf(&json, "{'decoder':%s,'model':{%s}}", cases[i].decoder, MODEL);
        write_file(*state, json.data);
        vl_str_clear(&json);
        vl_tokenizer *tokenizer = open_ok(*state);
        check_text(tokenizer, cases[i].ids, n, false, cases[i].text, strlen(cases[i].text));
        vl_tokenizer_close(tokenizer);
    }
}

/* ---- names, pieces, the borders of the interface ---- */

static void names_and_pieces(void **state)
{
    static const int32_t outside[] = {-1, 2, INT32_MAX, INT32_MIN, 100, 1};
    write_file(*state, "{'added_tokens':[{'id':7,'content':'<s>','special':true},{'id':9,'content':'<x>'}],"
                       "'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'S'}},"
                       "{'Sequence':{'id':'A'}},{'SpecialToken':{'id':'S'}}],'special_tokens':{'S':{'ids':[7,9]}}},"
                       "'decoder':{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'▁'},"
                       "'content':' '},{'type':'ByteFallback'},{'type':'Fuse'}]},'model':{'byte_fallback':true,"
                       "'vocab':{'▁':0,'a':1,'▁a':2,'<0xC3>':3,'<0x41>':4,'<0x00>':5},'merges':['▁ a']}}");
    temp_text(*state, "tokenizer_config.json",
              "{\"bos_token\":{\"content\":\"<s>\"},\"model_max_length\":1000000000000000019884624838656}");
    temp_text(*state, "special_tokens_map.json", "{\"bos_token\":\"<x>\",\"eos_token\":\"<x>\"}");
    vl_tokenizer *t = open_ok(*state);
    assert_int_equal(vl_tokenizer_size(t), 10);
    assert_int_equal(vl_tokenizer_bos(t), 7);
    assert_int_equal(vl_tokenizer_eos(t), 9);
    assert_int_equal(vl_tokenizer_id(t, "▁a"), 2);
    assert_int_equal(vl_tokenizer_id(t, "<x>"), 9);
    assert_int_equal(vl_tokenizer_id(t, " a"), -1);
    assert_true(vl_tokenizer_is_special(t, 7));
    assert_false(vl_tokenizer_is_special(t, 9));
    assert_false(vl_tokenizer_is_special(t, 6));
    assert_string_equal(vl_tokenizer_piece(t, 2), " a");
    assert_string_equal(vl_tokenizer_piece(t, 3), "<0xC3>");
    assert_string_equal(vl_tokenizer_piece(t, 4), "A");
    assert_string_equal(vl_tokenizer_piece(t, 5), "<0x00>");
    assert_string_equal(vl_tokenizer_piece(t, 7), "<s>");
    assert_null(vl_tokenizer_piece(t, 6));
    assert_null(vl_tokenizer_piece(t, -1));
    assert_null(vl_tokenizer_piece(t, 10));
    check_ids(t, "a<x>", 4, true, (const int32_t[]){7, 9, 1, 9, 7, 9}, 6);
    check_ids(t, "", 0, false, NULL, 0);
    check_ids(t, "a\0a", 3, false, (const int32_t[]){1, 5, 1}, 3);
    check_text(t, (const int32_t[]){1, 5, 1}, 3, false, "a\0a", 3);
    check_text(t, outside, 6, false, " aa", 3);
    check_text(t, (const int32_t[]){7, 2, 9, 3}, 4, true, " a<x>\ufffd", 10 - 2);
    check_text(t, NULL, 0, false, "", 0);
    vl_tokenizer_close(t);
    vl_tokenizer_close(NULL);
}

static void byte_level_pieces(void **state)
{
    write_file(*state, "{'decoder':{'type':'ByteLevel'},'model':{'vocab':{'Ġa':0,'Ã':1,'Ã©':2,'ĠâĢ':3,'Ċ':4},"
                       "'merges':[]}}");
    vl_tokenizer *t = open_ok(*state);
    assert_string_equal(vl_tokenizer_piece(t, 0), " a");
    assert_string_equal(vl_tokenizer_piece(t, 1), "<0xC3>");
    assert_string_equal(vl_tokenizer_piece(t, 2), "é");
    assert_string_equal(vl_tokenizer_piece(t, 3), " <0xE2><0x80>");
    assert_string_equal(vl_tokenizer_piece(t, 4), "\n");
    vl_tokenizer_close(t);
}

/* ---- hostile input ---- */

#define A_MODEL "'model':{'vocab':{'a':0,'b':1,'ab':2},'merges':[]}"

typedef struct refusal {
    const char *json;
    vl_status status;
    const char *word; /* the message holds it */
} refusal;

static const refusal refusals[] = {
    {"", VL_EFORMAT, "line"},
    {"[]", VL_EFORMAT, "model"},
    {"{}", VL_EFORMAT, "model"},
    {"{'model':[]}", VL_EFORMAT, "model"},
    {"{'model':{}}", VL_EFORMAT, "vocab"},
    {"{'model':{'vocab':[],'merges':[]}}", VL_EFORMAT, "vocab"},
    {"{'model':{'vocab':{'a':0}}}", VL_EFORMAT, "merges"},
    {"{'model':{'vocab':{'a':-1},'merges':[]}}", VL_EFORMAT, "id -1"},
    {"{'model':{'vocab':{'a':4294967296},'merges':[]}}", VL_EFORMAT, "4294967296"},
    {"{'model':{'vocab':{'a':99999999999999999999},'merges':[]}}", VL_EFORMAT, "line"},
    {"{'model':{'vocab':{'a':0,'b':0},'merges':[]}}", VL_EFORMAT, "belongs to"},
    {"{'model':{'vocab':{'a':0,'a':1},'merges':[]}}", VL_EFORMAT, "duplicate"},
    {"{'model':{'vocab':{'a':'0'},'merges':[]}}", VL_EFORMAT, "no integer"},
    {"{'model':{'vocab':{'a':0},'merges':[['a','b']]}}", VL_EFORMAT, "not in the vocabulary"},
    {"{'model':{'vocab':{'a':0},'merges':['a a']}}", VL_EFORMAT, "\"aa\""},
    {"{'model':{'vocab':{'a':0},'merges':['aa']}}", VL_EFORMAT, "merges[0]"},
    {"{'model':{'vocab':{'a':0},'merges':[['a','a','a']]}}", VL_EFORMAT, "merges[0]"},
    {"{'model':{'type':'Unigram','vocab':{'a':0},'merges':[]}}", VL_EUNSUPPORTED, "supported: BPE"},
    {"{'model':{'dropout':0.1,'vocab':{'a':0},'merges':[]}}", VL_EUNSUPPORTED, "dropout"},
    {"{'model':{'end_of_word_suffix':'</w>','vocab':{'a':0},'merges':[]}}", VL_EUNSUPPORTED, "end_of_word_suffix"},
    {"{'added_tokens':{}," A_MODEL "}", VL_EFORMAT, "added_tokens"},
    {"{'added_tokens':[1]," A_MODEL "}", VL_EFORMAT, "content"},
    {"{'added_tokens':[{'content':'x'}]," A_MODEL "}", VL_EFORMAT, "no integer"},
    {"{'added_tokens':[{'id':1,'content':'x'}]," A_MODEL "}", VL_EFORMAT, "belongs to"},
    {"{'added_tokens':[{'id':3,'content':'a'}]," A_MODEL "}", VL_EFORMAT, "ids 0 and 3"},
    {"{'added_tokens':[{'id':3,'content':'x'},{'id':3,'content':'x'}]," A_MODEL "}", VL_EFORMAT, "belongs to"},
    {"{'normalizer':{'type':'Precompiled'}," A_MODEL "}", VL_EUNSUPPORTED, "NFKC"},
    {"{'normalizer':3," A_MODEL "}", VL_EFORMAT, "type"},
    {"{'normalizer':{'type':'Sequence'}," A_MODEL "}", VL_EFORMAT, "normalizers"},
    {"{'normalizer':{'type':'Replace','content':'','pattern':{'Regex':'(a'}}," A_MODEL "}", VL_EFORMAT, "compile"},
    {"{'normalizer':{'type':'Replace','content':'','pattern':{'Regex':'[a&&b]'}}," A_MODEL "}", VL_EUNSUPPORTED, "&&"},
    {"{'normalizer':{'type':'Replace','content':'','pattern':{'Regex':'a\\\\'}}," A_MODEL "}", VL_EFORMAT, "backslash"},
    {"{'normalizer':{'type':'Replace','content':'','pattern':{'String':''}}," A_MODEL "}", VL_EUNSUPPORTED, "empty"},
    {"{'normalizer':{'type':'Replace','content':'','pattern':'a'}," A_MODEL "}", VL_EFORMAT, "pattern"},
    {"{'pre_tokenizer':{'type':'BertPreTokenizer'}," A_MODEL "}", VL_EUNSUPPORTED, "Metaspace"},
    {"{'pre_tokenizer':" SPLIT_B("Sideways") "," A_MODEL "}", VL_EFORMAT, "Sideways"},
    {"{'pre_tokenizer':{'type':'Metaspace','replacement':'ab'}," A_MODEL "}", VL_EFORMAT, "replacement"},
    {"{'decoder':{'type':'WordPiece'}," A_MODEL "}", VL_EUNSUPPORTED, "ByteFallback"},
    {"{'decoder':{'type':'Strip','content':' ','start':-1}," A_MODEL "}", VL_EFORMAT, "-1"},
    {"{'post_processor':{'type':'BertProcessing'}," A_MODEL "}", VL_EUNSUPPORTED, "TemplateProcessing"},
    {"{'post_processor':{'type':'TemplateProcessing','single':[]}," A_MODEL "}", VL_EFORMAT, "Sequence A"},
    {"{'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'S'}}],"
     "'special_tokens':{'S':{'ids':[77]}}}," A_MODEL "}",
     VL_EFORMAT, "77"},
};

static void check_refused(const char *folder, vl_status status, const char *word)
{
    vl_tokenizer *tokenizer = NULL;
    vl_error err = VL_ERROR_INIT;
    vl_status got = vl_tokenizer_open(&tokenizer, folder, &err);
    assert_null(tokenizer);
    if (got != status || !strstr(err.message, word))
        fail_msg("status %d (expected %d), \"%s\" (expected %s)", (int)got, (int)status, err.message, word);
}

static void hostile_files(void **state)
{
    check_refused(*state, VL_EIO, "tokenizer.json");
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        write_file(*state, refusals[i].json);
        check_refused(*state, refusals[i].status, refusals[i].word);
    }
    vl_str json = VL_STR_INIT;
    vl_str_puts(&json, "{'normalizer':");
    for (int i = 0; i < 1000; i++)
        vl_str_puts(&json, "{'type':'Sequence','normalizers':[");
    for (int i = 0; i < 1000; i++)
        vl_str_puts(&json, "]}");
    vl_str_puts(&json, "," A_MODEL "}");
    write_file(*state, json.data);
    check_refused(*state, VL_EFORMAT, "deeper");
    vl_str_clear(&json);
}

static void refuse_text(const vl_tokenizer *tokenizer, const char *text, size_t size, vl_status status,
                        const char *word)
{
    vl_token_ids ids;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_tokenizer_encode(&ids, tokenizer, text, size, true, &err), status);
    assert_null(ids.ids);
    if (!strstr(err.message, word))
        fail_msg("\"%s\" does not hold \"%s\"", err.message, word);
}

static void hostile_texts(void **state)
{
    static const char *const broken[] = {"ab\x80", "ab\xc3", "ab\xc0\xaf", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80"};
    write_file(*state, "{" A_MODEL "}");
    vl_tokenizer *t = open_ok(*state);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        refuse_text(t, broken[i], strlen(broken[i]), VL_EINVAL, "byte 2");
    refuse_text(t, "", (size_t)1 << 40, VL_EINVAL, "limit");
    vl_decoded text;
    vl_error err = VL_ERROR_INIT;
    assert_int_equal(vl_tokenizer_decode(&text, t, NULL, -1, false, &err), VL_EINVAL);
    vl_tokenizer_close(t);

    /* A regex that backtracks without end, an unk_token that is missing, a text blown up beyond all bounds. */
    char many[64];
    memset(many, 'a', sizeof many);
    write_file(*state,
               "{'pre_tokenizer':{'type':'Split','behavior':'Isolated','pattern':{'Regex':'(a+)+$(?<=b)'}}," A_MODEL
               "}");
    t = open_ok(*state);
    refuse_text(t, many, sizeof many, VL_EFORMAT, "gives up");
    vl_tokenizer_close(t);
    write_file(*state, "{'model':{'unk_token':'?','vocab':{'a':0},'merges':[]}}");
    t = open_ok(*state);
    refuse_text(t, "ab", 2, VL_EFORMAT, "unk_token");
    vl_tokenizer_close(t);
    vl_str json = VL_STR_INIT;
    vl_str_puts(&json, "{'normalizer':{'type':'Sequence','normalizers':[");
    for (int i = 0; i < 200; i++)
        vl_str_puts(&json, "{'type':'Replace','pattern':{'String':'a'},'content':'aaaaaaaa'},");
    vl_str_puts(&json, "{'type':'NFC'}]}," A_MODEL "}");
    write_file(*state, json.data);
    vl_str_clear(&json);
    t = open_ok(*state);
    refuse_text(t, "a", 1, VL_EFORMAT, "blow");
    vl_tokenizer_close(t);
}

/* One piece of a megabyte and no place to cut it: the merges must not take quadratic time, which would be hours (0.3 s
 * measured): the time limit of the test notices. */
static void long_piece(void **state)
{
    enum { N = 1 << 20 };
    write_file(*state, "{'model':{'vocab':{'a':0,'aa':1,'aaaa':2,'aaaaaaaa':3},"
                       "'merges':[['a','a'],['aa','aa'],['aaaa','aaaa']]}}");
    vl_tokenizer *t = open_ok(*state);
    char *text = vl_alloc(N, 1);
    vl_token_ids ids;
    assert_non_null(text);
    memset(text, 'a', N);
    assert_int_equal(vl_tokenizer_encode(&ids, t, text, N, true, NULL), VL_OK);
    assert_int_equal(ids.n, N / 8);
    vl_release(ids.ids);
    vl_free(text);
    vl_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures),
        cmocka_unit_test(outside_data),
        cmocka_unit_test_setup_teardown(each_component, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(model_options, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(each_decoder, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(names_and_pieces, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(byte_level_pieces, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(hostile_files, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(hostile_texts, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(long_piece, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
