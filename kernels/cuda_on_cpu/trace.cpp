#include "kernels/cuda_on_cpu/trace.h"

#include <cxxabi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <map>

namespace vl_sim
{
static thread_local int calls_in_progress;
static thread_local char this_thread; /* its address is the thread's name */

/* NULL where nothing is asked for. */
static FILE *trace_file()
{
    static FILE *const file = [] {
        FILE *opened = setting().trace ? fopen(setting().trace, "w") : NULL;
        if (setting().trace && !opened)
            stop("VL_CUDA_ON_CPU_TRACE=%s cannot be written", setting().trace);
        return opened;
    }();
    return file;
}

static uint64_t nanoseconds()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    static const uint64_t first = now;
    return now - first;
}

int trace_number(const void *object)
{
    static std::map<const void *, int> numbers;
    return object ? numbers.emplace(object, (int)numbers.size() + 1).first->second : 0;
}

char trace_place(const void *address)
{
    const allocation *a = find_allocation(address);
    return !a ? 'p' : a->pinned ? 'h' : 'd';
}

traced_call::traced_call(cudaStream_t s) : outermost(calls_in_progress++ == 0), begin(0), stream(s)
{
    if (outermost && trace_file())
        begin = nanoseconds();
}

traced_call::~traced_call()
{
    calls_in_progress--;
    if (!outermost || text.empty() || !trace_file())
        return;
    size_t kind = std::min(text.find(' '), text.size());
    fprintf(trace_file(), "%.*s %d %llu %llu %d%s\n", (int)kind, text.c_str(), trace_number(&this_thread),
            (unsigned long long)begin, (unsigned long long)nanoseconds(), trace_number(stream), text.c_str() + kind);
}

void traced_call::say(const char *format, ...)
{
    char part[256];
    va_list arguments;
    if (!trace_file())
        return;
    va_start(arguments, format);
    vsnprintf(part, sizeof part, format, arguments);
    va_end(arguments);
    text += part;
}

static std::string without(std::string text, const char *unwanted)
{
    text.erase(std::remove_if(text.begin(), text.end(), [=](char c) { return strchr(unwanted, c); }), text.end());
    return text;
}

/* One word after the other; the last may be short. */
static void add_words(void *text, const void *at, size_t size)
{
    for (size_t i = 0; i < size; i += sizeof(int64_t)) {
        int64_t word = 0;
        memcpy(&word, (const char *)at + i, std::min(sizeof word, size - i));
        char place = trace_place((const void *)word);
        *(std::string *)text += place == 'p' ? " " + std::to_string(word) : std::string(" ") + place;
    }
}

void traced_call::say_kernel(const launch_shape &s, const kernel_call &call)
{
    if (!trace_file())
        return;
    char *type = abi::__cxa_demangle(s.type, NULL, NULL, NULL);
    text += "kernel " + without(s.name, " ()") + " " + without(type ? type : s.type, " ");
    free(type);
    say(" %llu %u %zu", (unsigned long long)s.grid.x * s.grid.y * s.grid.z, s.block.x * s.block.y * s.block.z,
        s.shared_bytes);
    call.each_argument(add_words, &text);
}
} // namespace vl_sim
