#include "trainer/lens/pickle.h"

#include <stdio.h>
#include <string.h>

#include "trainer/base/mem.h"
#include "trainer/lens/pickle_parts.h"
#include "trainer/base/load.h"

/* Opcodes by their names in Lib/pickletools.py. */
enum opcode {
    OP_MARK = '(',
    OP_EMPTY_TUPLE = ')',
    OP_STOP = '.',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINUNICODE = 'X',
    OP_EMPTY_DICT = '}',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a
};

vl_status vl_pickle_refuse(const vl_pickle_machine *m, const char *what)
{
    return vl_fail(m->err, VL_EFORMAT, "%s: the pickle is no flat mapping of names to tensors: %s (byte %zu)", m->where,
                   what, m->at);
}

const char *vl_pickle_printable(char out[64], vl_pickle_text text)
{
    size_t n = text.size < 60 ? text.size : 60;
    for (size_t i = 0; i < n; i++)
        out[i] = text.text[i] >= ' ' && text.text[i] <= '~' ? text.text[i] : '?';
    out[n] = 0;
    return out;
}

bool vl_pickle_is(vl_pickle_text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.text, word, text.size) == 0;
}

static vl_status add(vl_pickle_values *list, const vl_pickle_machine *m, const vl_pickle_value *value)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        vl_pickle_value *more = vl_realloc(list->at, capacity, sizeof *more);
        if (!more)
            return vl_fail_nomem(m->err, m->where);
        list->at = more;
        list->capacity = capacity;
    }
    list->at[list->n++] = *value;
    return VL_OK;
}

static vl_status push(vl_pickle_machine *m, vl_pickle_kind kind, int64_t number)
{
    return add(&m->stack, m, &(vl_pickle_value){.kind = kind, .number = number});
}

static vl_status take(const uint8_t **out, vl_pickle_machine *m, size_t n)
{
    if (m->size - m->at < n)
        return vl_pickle_refuse(m, "it is cut off");
    *out = m->data + m->at;
    m->at += n;
    return VL_OK;
}

static vl_status need(const vl_pickle_machine *m, size_t n)
{
    return m->stack.n >= n ? VL_OK : vl_pickle_refuse(m, "an opcode that finds nothing to work on");
}

static vl_status read_text(vl_pickle_machine *m)
{
    const uint8_t *p;
    VL_TRY(take(&p, m, 4));
    size_t n = vl_load_le32(p);
    VL_TRY(take(&p, m, n));
    return add(&m->stack, m, &(vl_pickle_value){.kind = PICKLE_TEXT, .text = {(const char *)p, n}});
}

/* A little-endian integer of n <= 8 bytes, two's complement. */
static vl_status read_signed(vl_pickle_machine *m, size_t n)
{
    const uint8_t *p;
    uint64_t value = 0;
    if (n > 8)
        return vl_pickle_refuse(m, "an integer of more than 8 bytes");
    VL_TRY(take(&p, m, n));
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)p[i] << (8 * i);
    if (n && n < 8 && p[n - 1] & 0x80)
        value |= UINT64_MAX << (8 * n);
    int64_t number;
    memcpy(&number, &value, sizeof number);
    return push(m, PICKLE_INT, number);
}

static vl_status read_long(vl_pickle_machine *m)
{
    const uint8_t *p;
    VL_TRY(take(&p, m, 1));
    return read_signed(m, p[0]);
}

/* 'm' "module" '\n' "name" '\n' */
static vl_status read_line(vl_pickle_text *out, vl_pickle_machine *m)
{
    const uint8_t *start = m->data + m->at, *end = memchr(start, '\n', m->size - m->at);
    if (!end)
        return vl_pickle_refuse(m, "it is cut off");
    *out = (vl_pickle_text){(const char *)start, (size_t)(end - start)};
    m->at += out->size + 1;
    return VL_OK;
}

static vl_status read_global(vl_pickle_machine *m)
{
    vl_pickle_text module, name;
    vl_pickle_value value;
    VL_TRY(read_line(&module, m));
    VL_TRY(read_line(&name, m));
    VL_TRY(vl_pickle_global_of(&value, m, module, name));
    return add(&m->stack, m, &value);
}

/* The memo is filled in order, so a number is never far beyond what is there. */
static vl_status memo_put(vl_pickle_machine *m, size_t bytes)
{
    const uint8_t *p;
    VL_TRY(take(&p, m, bytes));
    VL_TRY(need(m, 1));
    size_t k = bytes == 1 ? p[0] : vl_load_le32(p);
    const vl_pickle_value *top = &m->stack.at[m->stack.n - 1];
    if (k > m->memo.n || top->kind == PICKLE_MARK)
        return vl_pickle_refuse(m, "a memo out of order");
    if (k == m->memo.n)
        return add(&m->memo, m, top);
    m->memo.at[k] = *top;
    return VL_OK;
}

static vl_status memo_get(vl_pickle_machine *m, size_t bytes)
{
    const uint8_t *p;
    VL_TRY(take(&p, m, bytes));
    size_t k = bytes == 1 ? p[0] : vl_load_le32(p);
    if (k >= m->memo.n)
        return vl_pickle_refuse(m, "a memo that was never filled");
    return add(&m->stack, m, &m->memo.at[k]);
}

/* Replaces the topmost `n` values by a tuple of them. */
static vl_status make_tuple(vl_pickle_machine *m, size_t n)
{
    VL_TRY(need(m, n));
    vl_pickle_value tuple = {.kind = PICKLE_TUPLE, .first = m->items.n, .n = n};
    for (size_t i = m->stack.n - n; i < m->stack.n; i++) {
        if (m->stack.at[i].kind == PICKLE_MARK)
            return vl_pickle_refuse(m, "a tuple across a mark");
        VL_TRY(add(&m->items, m, &m->stack.at[i]));
    }
    m->stack.n -= n;
    return add(&m->stack, m, &tuple);
}

/* How many values lie above the topmost mark. */
static vl_status above_mark(size_t *out, const vl_pickle_machine *m)
{
    for (size_t i = m->stack.n; i-- > 0;)
        if (m->stack.at[i].kind == PICKLE_MARK) {
            *out = m->stack.n - i - 1;
            return VL_OK;
        }
    return vl_pickle_refuse(m, "a mark is missing");
}

static vl_status make_tuple_of_marked(vl_pickle_machine *m)
{
    size_t n;
    VL_TRY(above_mark(&n, m));
    VL_TRY(make_tuple(m, n));
    m->stack.at[m->stack.n - 2] = m->stack.at[m->stack.n - 1]; /* over the mark */
    m->stack.n--;
    return VL_OK;
}

/* dict[key] = value. What is no tensor is kept as -1: such a dict may be an attribute, never the result. */
static vl_status set_item(vl_pickle_machine *m, const vl_pickle_value *dict, const vl_pickle_value *key,
                          const vl_pickle_value *value)
{
    if (dict->kind != PICKLE_DICT || key->kind != PICKLE_TEXT || value->kind == PICKLE_MARK)
        return vl_pickle_refuse(m, "an item that is set without a dict and a text as its key");
    if (m->n_entries == m->entry_capacity) {
        size_t capacity = m->entry_capacity ? 2 * m->entry_capacity : 64;
        vl_pickle_entry *more = vl_realloc(m->entries, capacity, sizeof *more);
        if (!more)
            return vl_fail_nomem(m->err, m->where);
        m->entries = more;
        m->entry_capacity = capacity;
    }
    m->entries[m->n_entries++] =
        (vl_pickle_entry){dict->number, value->kind == PICKLE_TENSOR ? value->number : -1, key->text};
    return VL_OK;
}

/* The `n` topmost values are keys and values; below them, and below `below` more, lies the dict. */
static vl_status set_items(vl_pickle_machine *m, size_t n, size_t below)
{
    VL_TRY(need(m, n + below + 1));
    if (n % 2)
        return vl_pickle_refuse(m, "a key without a value");
    size_t first = m->stack.n - n;
    const vl_pickle_value *dict = &m->stack.at[first - below - 1];
    for (size_t i = first; i < m->stack.n; i += 2)
        VL_TRY(set_item(m, dict, &m->stack.at[i], &m->stack.at[i + 1]));
    m->stack.n = first - below;
    return VL_OK;
}

static vl_status set_marked_items(vl_pickle_machine *m)
{
    size_t n;
    VL_TRY(above_mark(&n, m));
    return set_items(m, n, 1);
}

/* Replaces callee and arguments by the result. */
static vl_status reduce(vl_pickle_machine *m)
{
    vl_pickle_value result;
    VL_TRY(need(m, 2));
    VL_TRY(vl_pickle_call(&result, m, &m->stack.at[m->stack.n - 2], &m->stack.at[m->stack.n - 1]));
    m->stack.at[m->stack.n - 2] = result;
    m->stack.n--;
    return VL_OK;
}

static vl_status persistent(vl_pickle_machine *m)
{
    vl_pickle_value result;
    VL_TRY(need(m, 1));
    VL_TRY(vl_pickle_storage(&result, m, &m->stack.at[m->stack.n - 1]));
    m->stack.at[m->stack.n - 1] = result;
    return VL_OK;
}

/* Attributes of an OrderedDict: state_dict() leaves `_metadata` there, which nobody needs. */
static vl_status build(vl_pickle_machine *m)
{
    VL_TRY(need(m, 2));
    if (m->stack.at[m->stack.n - 2].kind != PICKLE_DICT || m->stack.at[m->stack.n - 1].kind != PICKLE_DICT)
        return vl_pickle_refuse(m, "attributes of something that is no dict");
    m->stack.n--;
    return VL_OK;
}

static vl_status unknown(const vl_pickle_machine *m, int opcode)
{
    return vl_fail(m->err, VL_EFORMAT,
                   "%s: the pickle uses opcode 0x%02x ('%c'), which torch.save does not need for a state dict (byte "
                   "%zu)",
                   m->where, (unsigned)opcode, opcode > ' ' && opcode < 127 ? opcode : '?', m->at - 1);
}

static vl_status step(vl_pickle_machine *m, int opcode)
{
    const uint8_t *p;
    switch (opcode) {
    case OP_MARK: return push(m, PICKLE_MARK, 0);
    case OP_NONE: return push(m, PICKLE_NONE, 0);
    case OP_NEWTRUE: return push(m, PICKLE_BOOL, 1);
    case OP_NEWFALSE: return push(m, PICKLE_BOOL, 0);
    case OP_EMPTY_DICT: return push(m, PICKLE_DICT, m->n_dicts++);
    case OP_EMPTY_TUPLE: return make_tuple(m, 0);
    case OP_TUPLE1: return make_tuple(m, 1);
    case OP_TUPLE2: return make_tuple(m, 2);
    case OP_TUPLE3: return make_tuple(m, 3);
    case OP_TUPLE: return make_tuple_of_marked(m);
    case OP_BININT: return read_signed(m, 4);
    case OP_LONG1: return read_long(m);
    case OP_BINUNICODE: return read_text(m);
    case OP_GLOBAL: return read_global(m);
    case OP_BINPUT: return memo_put(m, 1);
    case OP_LONG_BINPUT: return memo_put(m, 4);
    case OP_BINGET: return memo_get(m, 1);
    case OP_LONG_BINGET: return memo_get(m, 4);
    case OP_SETITEM: return set_items(m, 2, 0);
    case OP_SETITEMS: return set_marked_items(m);
    case OP_REDUCE: return reduce(m);
    case OP_BINPERSID: return persistent(m);
    case OP_BUILD: return build(m);
    case OP_BININT1: VL_TRY(take(&p, m, 1)); return push(m, PICKLE_INT, p[0]);
    case OP_BININT2: VL_TRY(take(&p, m, 2)); return push(m, PICKLE_INT, vl_load_le16(p));
    default: return unknown(m, opcode);
    }
}

static vl_status run(vl_pickle_machine *m)
{
    const uint8_t *p;
    VL_TRY(take(&p, m, 2));
    if (p[0] != OP_PROTO || p[1] != 2)
        return vl_fail(m->err, VL_EUNSUPPORTED, "%s: no pickle of protocol 2, which is what torch.save writes",
                       m->where);
    for (;;) {
        VL_TRY(take(&p, m, 1));
        if (*p == OP_STOP)
            break;
        VL_TRY(step(m, *p));
    }
    if (m->stack.n != 1 || m->stack.at[0].kind != PICKLE_DICT)
        return vl_pickle_refuse(m, "the result is no dict");
    return m->at == m->size ? VL_OK : vl_pickle_refuse(m, "more bytes behind its end");
}

/* The tensors of the resulting dict, under their names. */
static vl_status collect(vl_pickle_tensor **out, size_t *n, vl_pickle_machine *m)
{
    int64_t result = m->stack.at[0].number;
    char name[64];
    for (size_t i = 0; i < m->n_entries; i++)
        if (m->entries[i].dict == result && m->entries[i].tensor < 0)
            return vl_fail(m->err, VL_EFORMAT, "%s: '%s' is no tensor, expected a flat state dict", m->where,
                           vl_pickle_printable(name, m->entries[i].name));
    vl_pickle_tensor *list = vl_calloc(m->n_entries ? m->n_entries : 1, sizeof *list);
    if (!list)
        return vl_fail_nomem(m->err, m->where);
    *n = 0;
    for (size_t i = 0; i < m->n_entries; i++)
        if (m->entries[i].dict == result) {
            list[*n] = m->tensors[m->entries[i].tensor];
            list[(*n)++].name = m->entries[i].name;
        }
    *out = list;
    return VL_OK;
}

vl_status vl_pickle_read(vl_pickle_tensor **out, size_t *n, const uint8_t *data, size_t size, const char *where,
                         vl_error *err)
{
    vl_status status = VL_OK;
    vl_pickle_machine m = {.where = where, .data = data, .size = size, .err = err};
    *out = NULL;
    *n = 0;
    if (size > VL_PICKLE_MAX_BYTES)
        return vl_fail(err, VL_EFORMAT, "%s: a pickle of %zu bytes, expected at most %d", where, size,
                       VL_PICKLE_MAX_BYTES);
    VL_GOTO(run(&m));
    VL_GOTO(collect(out, n, &m));
done:
    vl_free(m.stack.at);
    vl_free(m.memo.at);
    vl_free(m.items.at);
    vl_free(m.tensors);
    vl_free(m.entries);
    return status;
}
