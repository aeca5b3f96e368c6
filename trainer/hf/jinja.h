/* hf/jinja.h - the part of Jinja that chat templates are written in: parsed once, rendered for each conversation.
 *
 * Semantics: Jinja 3.1 (jinja2/lexer.py, parser.py, filters.py) with the settings of transformers
 * (utils/chat_template_utils.py): trim_blocks and lstrip_blocks on, no escaping, one trailing newline dropped, the
 * statements break, continue and generation, a tojson without escapes for HTML or ASCII. What is not here is refused
 * with its name and line, and only when it is reached.
 *
 * Templates are foreign code: steps, depth, memory and output are bounded. */
#ifndef VL_HF_JINJA_H
#define VL_HF_JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/base/status.h"
#include "trainer/base/str.h"

enum {
    VL_JINJA_SOURCE_BYTES = 1 << 20, /* the longest template */
    VL_JINJA_MEMORY = 256 << 20,     /* of one rendering, and of its output */
    VL_JINJA_STEPS = 20000000,       /* nodes of one rendering */
    VL_JINJA_DEPTH = 100             /* of nesting, in the source and of calls */
};

/* ---- memory: freed as a whole (jinja_value.c) -------------------------------------------------------------- */

typedef struct vl_jinja_arena {
    struct vl_jinja_chunk *chunks;
    size_t used; /* in all */
} vl_jinja_arena;

/* Zeroed and aligned for any of the types below; NULL when out of memory or beyond VL_JINJA_MEMORY. */
void *vl_jinja_alloc(vl_jinja_arena *arena, size_t count, size_t size);
void vl_jinja_arena_clear(vl_jinja_arena *arena);

/* ---- values ------------------------------------------------------------------------------------------------ */

typedef enum vl_jinja_kind {
    VL_JINJA_UNDEFINED = 0,
    VL_JINJA_NONE,
    VL_JINJA_BOOL,
    VL_JINJA_INT,
    VL_JINJA_FLOAT,
    VL_JINJA_TEXT,
    VL_JINJA_LIST, /* tuples too */
    VL_JINJA_DICT, /* namespaces too */
    VL_JINJA_MACRO
} vl_jinja_kind;

typedef struct vl_jinja_value {
    vl_jinja_kind kind;
    union {
        bool truth;
        int64_t number;
        double real;
        struct {
            const char *text; /* [size], borrowed or of the arena; may hold NULs */
            size_t size;
        };
        struct vl_jinja_list *list;
        struct vl_jinja_dict *dict;
        const struct vl_jinja_node *macro; /* NULL: a function of jinja_calls.c */
    };
} vl_jinja_value;

typedef struct vl_jinja_list {
    vl_jinja_value *items;
    size_t n, capacity;
} vl_jinja_list;

/* Keys are texts; in the order in which they came. */
typedef struct vl_jinja_dict {
    vl_jinja_value *keys, *values;
    size_t n, capacity;
    bool is_namespace; /* {% set x.key = ... %} may change it */
} vl_jinja_dict;

vl_jinja_value vl_jinja_text(const char *text, size_t size);
vl_jinja_value vl_jinja_string(const char *text); /* of a NUL-terminated text */
vl_jinja_value vl_jinja_bool(bool truth);
vl_jinja_value vl_jinja_int(int64_t number);
vl_jinja_value vl_jinja_none(void);
/* Empty ones; false when out of memory, as the two that add. */
bool vl_jinja_list_new(vl_jinja_value *out, vl_jinja_arena *arena);
bool vl_jinja_list_add(vl_jinja_value list, vl_jinja_arena *arena, vl_jinja_value item);
bool vl_jinja_dict_new(vl_jinja_value *out, vl_jinja_arena *arena);
bool vl_jinja_dict_set(vl_jinja_value dict, vl_jinja_arena *arena, vl_jinja_value key, vl_jinja_value value);
/* NULL where the dict has no such key. */
const vl_jinja_value *vl_jinja_dict_get(vl_jinja_value dict, const char *key, size_t size);

bool vl_jinja_is_true(vl_jinja_value value);
bool vl_jinja_equal(vl_jinja_value a, vl_jinja_value b);
bool vl_jinja_is(vl_jinja_value value, const char *text); /* the text, exactly */
const char *vl_jinja_kind_name(vl_jinja_kind kind);

/* ---- the parsed template (jinja_lex.c, jinja_parse.c, jinja_expression.c) ----------------------------------- */

typedef enum vl_jinja_token_kind {
    VL_JINJA_END = 0,
    VL_JINJA_DATA, /* text between tags */
    VL_JINJA_BLOCK_BEGIN,
    VL_JINJA_BLOCK_END,
    VL_JINJA_VARIABLE_BEGIN,
    VL_JINJA_VARIABLE_END,
    VL_JINJA_NAME,
    VL_JINJA_STRING, /* between its quotes, escapes as written */
    VL_JINJA_NUMBER,
    VL_JINJA_OPERATOR
} vl_jinja_token_kind;

typedef struct vl_jinja_token {
    vl_jinja_token_kind kind;
    const char *text;
    size_t size;
    int line;
} vl_jinja_token;

typedef enum vl_jinja_node_kind {
    /* statements; `next` is the following one */
    VL_JINJA_PRINT,      /* a: the expression */
    VL_JINJA_RAW,        /* value: text */
    VL_JINJA_IF,         /* a: condition, body, otherwise */
    VL_JINJA_FOR,        /* items: target names; a: what is iterated; b: filter or NULL; body, otherwise */
    VL_JINJA_SET,        /* items: targets; a: value, or body where NULL */
    VL_JINJA_DEFINE,     /* macro: value: its name; items: parameter names, c->items: their defaults or NULL; body */
    VL_JINJA_GENERATION, /* body */
    VL_JINJA_BREAK,
    VL_JINJA_CONTINUE,
    /* expressions */
    VL_JINJA_CONSTANT,  /* value */
    VL_JINJA_VARIABLE,  /* value: name */
    VL_JINJA_ATTRIBUTE, /* a . value */
    VL_JINJA_ITEM,      /* a [ b ] */
    VL_JINJA_SLICE,     /* a [ items[0] : items[1] : items[2] ], each may be NULL */
    VL_JINJA_CALL,      /* a ( items ), keywords: pairs in `named` */
    VL_JINJA_FILTER,    /* a | value ( items ) */
    VL_JINJA_TEST,      /* a is value ( items ) */
    VL_JINJA_UNARY,     /* value: "not", "-", "+" */
    VL_JINJA_BINARY,    /* a value b: arithmetic, "~", "and", "or" */
    VL_JINJA_COMPARE,   /* a value b; a chain is joined by "and" */
    VL_JINJA_CONDITION, /* a if b else c (c may be NULL) */
    VL_JINJA_MAKE_LIST, /* items */
    VL_JINJA_MAKE_DICT  /* items: key, value, ... */
} vl_jinja_node_kind;

typedef struct vl_jinja_node {
    vl_jinja_node_kind kind;
    int line;
    vl_jinja_value value;
    struct vl_jinja_node *a, *b, *c, *body, *otherwise, *next;
    struct vl_jinja_node **items, **named; /* named: CONSTANT (name), value, ... */
    int n_items, n_named;
} vl_jinja_node;

typedef struct vl_jinja_parser {
    const char *name; /* of the file, for messages */
    const vl_jinja_token *tokens;
    size_t at;
    vl_jinja_arena *arena;
    int depth;
    vl_error *err;
} vl_jinja_parser;

/* Tokens of a source, in the arena. */
vl_status vl_jinja_lex(const vl_jinja_token **out, vl_jinja_arena *arena, const char *name, const char *source,
                       size_t size, vl_error *err);
/* Statements up to the end. */
vl_status vl_jinja_parse(vl_jinja_node **out, vl_jinja_arena *arena, const char *name, const vl_jinja_token *tokens,
                         vl_error *err);
/* For the parser's two files. */
vl_status vl_jinja_parse_expression(vl_jinja_node **out, vl_jinja_parser *parser);
vl_status vl_jinja_node_new(vl_jinja_node **out, vl_jinja_parser *parser, vl_jinja_node_kind kind);
vl_status vl_jinja_node_add(vl_jinja_node ***items, int *n, vl_jinja_parser *parser, vl_jinja_node *item);
/* Is the next token this operator (or name)? take: and steps over it. */
bool vl_jinja_peek(const vl_jinja_parser *parser, vl_jinja_token_kind kind, const char *text);
bool vl_jinja_take(vl_jinja_parser *parser, vl_jinja_token_kind kind, const char *text);
vl_status vl_jinja_expect(vl_jinja_parser *parser, vl_jinja_token_kind kind, const char *text);

/* ---- rendering (jinja_execute.c, jinja_eval.c, jinja_items.c, jinja_filters.c, jinja_calls.c)
 * ------------------------------------------------ */

typedef struct vl_jinja_span {
    size_t first, end; /* bytes of the output */
} vl_jinja_span;

typedef struct vl_jinja_scope {
    vl_jinja_value names; /* dict */
    struct vl_jinja_scope *outer;
} vl_jinja_scope;

typedef struct vl_jinja_run {
    const char *name; /* of the template, for messages */
    vl_jinja_arena *arena;
    vl_jinja_scope *scope;
    vl_jinja_scope *globals;
    vl_str *out;
    const char *date; /* "2024-07-26": what strftime_now tells; NULL: it is refused */
    /* What {% generation %} encloses; [n_spans], of the arena. */
    vl_jinja_span *spans;
    size_t n_spans;
    int64_t steps;
    int depth;
    enum { VL_JINJA_GO_ON = 0, VL_JINJA_LEAVE, VL_JINJA_NEXT } flow;
    vl_error *err;
} vl_jinja_run;

/* Runs statements: text goes to run->out. */
vl_status vl_jinja_execute(vl_jinja_run *run, const vl_jinja_node *statements);
vl_status vl_jinja_evaluate(vl_jinja_value *out, vl_jinja_run *run, const vl_jinja_node *expression);

/* A call's operands, evaluated. */
typedef struct vl_jinja_call {
    const vl_jinja_node *node;
    const char *name;
    size_t name_size;
    vl_jinja_value self;       /* what is filtered, tested, or whose method it is */
    vl_jinja_value *arguments; /* [n] */
    int n;
    vl_jinja_value keywords; /* dict */
} vl_jinja_call;

vl_status vl_jinja_call_macro(vl_jinja_value *out, vl_jinja_run *run, const vl_jinja_node *macro,
                              const vl_jinja_call *call);
/* What a name stands for; undefined where nothing has set it. */
vl_jinja_value vl_jinja_find(const vl_jinja_run *run, vl_jinja_value name);
vl_status vl_jinja_filter(vl_jinja_value *out, vl_jinja_run *run, const vl_jinja_call *call);
vl_status vl_jinja_test(bool *out, vl_jinja_run *run, const vl_jinja_call *call);
/* A function (self undefined) or a method. */
vl_status vl_jinja_invoke(vl_jinja_value *out, vl_jinja_run *run, const vl_jinja_call *call);
bool vl_jinja_named(const vl_jinja_call *call, const char *name);
/* Argument i, or the keyword (may be NULL); NULL where it is not given. */
const vl_jinja_value *vl_jinja_argument(const vl_jinja_call *call, int i, const char *keyword);
/* a in b. */
vl_status vl_jinja_contains(bool *out, vl_jinja_run *run, const vl_jinja_node *node, vl_jinja_value a,
                            vl_jinja_value b);
/* The items of a list, the keys of a dict, the letters of a text; nothing of what is undefined. */
vl_status vl_jinja_items(vl_jinja_value *list, vl_jinja_run *run, const vl_jinja_node *node, vl_jinja_value value);
/* object.name or object[name]: undefined where it is missing, an error where object is undefined. */
vl_status vl_jinja_member(vl_jinja_value *out, vl_jinja_run *run, const vl_jinja_node *node, vl_jinja_value object,
                          vl_jinja_value name);
/* object[first:end:step]; bounds are numbers or none. */
vl_status vl_jinja_slice(vl_jinja_value *out, vl_jinja_run *run, const vl_jinja_node *node, vl_jinja_value object,
                         const vl_jinja_value bounds[3]);
/* As Python's str() shows it. */
vl_status vl_jinja_show(vl_str *out, vl_jinja_run *run, const vl_jinja_node *node, vl_jinja_value value);
/* A text of the arena with the bytes of a builder, which is cleared. */
vl_status vl_jinja_finish(vl_jinja_value *out, vl_jinja_run *run, vl_str *text);

/* "name:line: ..." */
vl_status vl_jinja_fail(const vl_jinja_run *run, const vl_jinja_node *node, vl_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
vl_status vl_jinja_nomem(const vl_jinja_run *run);

#endif
