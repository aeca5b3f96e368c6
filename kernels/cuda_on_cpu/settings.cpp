/* The settings of the simulated device: the one place of the project that reads the environment. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda_on_cpu/sim.h"

namespace vl_sim
{
void stop(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("cuda_on_cpu: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

static schedule schedule_named(const char *name)
{
    static const char *const names[] = {"forward", "reverse", "random", "warp-greedy"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i]))
            return (schedule)i;
    stop("VL_CUDA_ON_CPU_SCHEDULE=%s, expected forward, reverse, random or warp-greedy", name);
}

static uint64_t number(const char *name, uint64_t standard)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return standard;
    uint64_t value = strtoull(text, &end, 10);
    if (*end || *text == '-')
        stop("%s=%s, expected a number", name, text);
    return value;
}

static settings read_settings()
{
    settings s;
    const char *name = getenv("VL_CUDA_ON_CPU_SCHEDULE");
    s.schedule = name && *name ? schedule_named(name) : FORWARD;
    s.seed = number("VL_CUDA_ON_CPU_SEED", 1);
    s.lazy = number("VL_CUDA_ON_CPU_LAZY", 0) != 0;
    s.guard = number("VL_CUDA_ON_CPU_GUARD", 0) != 0;
    s.dry = number("VL_CUDA_ON_CPU_DRY", 0) != 0;
    s.trace = getenv("VL_CUDA_ON_CPU_TRACE");
    s.memory = (size_t)number("VL_CUDA_ON_CPU_MEMORY", 8192) << 20;
    s.capability = (int)number("VL_CUDA_ON_CPU_CAPABILITY", 80);
    s.devices = (int)number("VL_CUDA_ON_CPU_DEVICES", 1);
    if (s.capability != 75 && s.capability != 80 && s.capability != 90)
        stop("VL_CUDA_ON_CPU_CAPABILITY=%d, expected 75, 80 or 90", s.capability);
    return s;
}

const settings &setting()
{
    static const settings s = read_settings();
    return s;
}

uint64_t next_random()
{
    static uint64_t state = setting().seed * 0x9e3779b97f4a7c15u + 1;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}
} // namespace vl_sim
