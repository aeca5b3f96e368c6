/* Kernels with a planted error each, beside the same kernels without one: planted_test.py says which build and which
 * order of threads must find what. The program runs the case that it is given and prints "ok" or "wrong". */
#include <stdio.h>

#include "kernels/cuda/cuda.cuh"

enum { THREADS = 128, WARPS = THREADS / 32, ROUNDS = 3 };

/* What is wrong with this launch; 0 is nothing. */
enum plant {
    CLEAN = 0,
    NO_FIRST_BARRIER,
    NO_LAST_BARRIER,
    NO_SYNCWARP,
    NOT_INITIALISED,
    NO_DYNAMIC_INITIALISED,
    BEYOND_GLOBAL,
    BEYOND_DYNAMIC,
    BEYOND_STATIC,
    DIVERGENT_BARRIER,
    EXITED_AT_BARRIER,
    EXITED_LANE,
    OUTSIDE_MASK,
    NOT_IN_MASK,
    DIFFERENT_OPERATIONS,
    HOST_POINTER,
    MISALIGNED,
    SAME_WORD,
    PLAIN_AFTER_ATOMIC,
    PLAIN_OF_OTHER_BLOCK
};

/* Sums over the block, several times through the same shared memory: the shape of every reduction of the project. */
__global__ void sums(float *out, plant p)
{
    __shared__ float part[WARPS];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    for (int round = 0; round < ROUNDS; round++) {
        float value = (float)((int)threadIdx.x * (round + 1));
        for (int distance = 16; distance > 0; distance /= 2)
            value += __shfl_xor_sync(0xffffffffu, value, distance);
        if (lane == 0 && !(p == NOT_INITIALISED && warp == 1))
            part[p == BEYOND_STATIC ? warp + WARPS : warp] = value;
        if (p != NO_FIRST_BARRIER)
            __syncthreads();
        float sum = 0;
        for (int i = 0; i < WARPS; i++)
            sum += part[i];
        if (p != NO_LAST_BARRIER)
            __syncthreads();
        out[((int)blockIdx.x * ROUNDS + round) * THREADS + (int)threadIdx.x] = sum;
    }
}

/* Reverses the lanes of each warp through dynamic shared memory. */
__global__ void reversed(float *out, plant p)
{
    VL_DYNAMIC_SHARED(float, row);
    int t = (int)threadIdx.x, mirror = t / 32 * 32 + 31 - t % 32;
    if (!(p == NO_DYNAMIC_INITIALISED && t == 5))
        row[p == BEYOND_DYNAMIC ? t + 1 : t] = (float)t;
    if (p != NO_SYNCWARP)
        __syncwarp();
    out[t] = row[mirror];
}

__global__ void barriers(float *out, plant p)
{
    int t = (int)threadIdx.x;
    if (p == EXITED_AT_BARRIER && t == 7)
        return;
    if (p == DIVERGENT_BARRIER && t < 32)
        __syncthreads();
    else
        __syncthreads();
    out[t] = 1;
}

__global__ void lanes(float *out, plant p)
{
    int t = (int)threadIdx.x, lane = t % 32;
    float got = 0;
    if (p == EXITED_LANE && lane == 3)
        return;
    if (p == OUTSIDE_MASK && lane < 16)
        got = __shfl_sync(0xffffu, (float)t, 20);
    else if (p == NOT_IN_MASK && lane == 9)
        got = __shfl_sync(0xffu, (float)t, 0);
    else if (p == DIFFERENT_OPERATIONS && lane < 4)
        __syncwarp();
    else if (p != OUTSIDE_MASK)
        got = __shfl_sync(0xffffffffu, (float)t, 0);
    out[t] = got;
}

__global__ void globals(float *out, const float *host, unsigned *counter, plant p)
{
    int t = (int)threadIdx.x, block = (int)blockIdx.x;
    if (p == BEYOND_GLOBAL && block == 1)
        out[t + 1 + THREADS] = 1;
    else if (p == SAME_WORD)
        out[t] = (float)block;
    else if (p != MISALIGNED)
        out[t + block * THREADS] = p == HOST_POINTER ? host[t] : 1;
    if (p == MISALIGNED)
        *(double *)(out + 4 * t + 1) = 1;
    atomicAdd(counter, 1u);
    if (p == PLAIN_AFTER_ATOMIC)
        out[t + block * THREADS] = (float)*counter;
    if (p == PLAIN_OF_OTHER_BLOCK && block == 1)
        out[t + THREADS] = out[t];
}

/* Votes, shuffles of every kind, widths, partial masks, and a last warp that is not whole: no error in it. */
__global__ void warps(float *out)
{
    int t = (int)threadIdx.x, lane = t % 32;
    unsigned low = __ballot_sync(0xffffffffu, lane < 8), same = __match_any_sync(0xffffffffu, lane / 4);
    float got = (float)__popc(low) + (float)__popc(same);
    got += (float)__shfl_down_sync(0xffffffffu, lane, 1, 8) + (float)__shfl_up_sync(0xffffffffu, lane, 1, 8);
    if (lane < 8)
        got += (float)__shfl_xor_sync(0xffu, lane, 1);
    got += (float)__all_sync(0xffffffffu, 1) + (float)__any_sync(0xffffffffu, lane == 2);
    out[t] = got + (float)__syncthreads_count(t % 2);
}

static float wanted_of_warps(int t, int threads)
{
    int lane = t % 32, present = threads - t / 32 * 32 < 32 ? threads - t / 32 * 32 : 32;
    int down = lane % 8 < 7 ? lane + 1 : lane, up = lane % 8 > 0 ? lane - 1 : lane;
    return (float)((present < 8 ? present : 8) + 4 + down + up + (lane < 8 ? lane ^ 1 : 0) + 2 + threads / 2);
}

static int check(const char *what, const float *got, int n, float (*wanted)(int))
{
    for (int i = 0; i < n; i++) {
        if (!(got[i] == wanted(i))) {
            printf("wrong: %s: element %d is %g, expected %g\n", what, i, (double)got[i], (double)wanted(i));
            return 1;
        }
    }
    return 0;
}

static float wanted_sum(int i)
{
    return (float)(THREADS * (THREADS - 1) / 2 * (i / THREADS % ROUNDS + 1));
}
static float wanted_reversed(int t)
{
    return (float)(t / 32 * 32 + 31 - t % 32);
}
static float wanted_one(int)
{
    return 1;
}
static float wanted_first_lane(int t)
{
    return (float)(t / 32 * 32);
}
static float wanted_whole_warps(int t)
{
    return wanted_of_warps(t, THREADS);
}
static float wanted_part_of_warp(int t)
{
    return wanted_of_warps(t, THREADS - 24);
}

struct memory {
    float *out;
    unsigned *counter;
    cudaStream_t stream;
    float host[2 * ROUNDS * THREADS];
};

static const float *results(memory *m, int n)
{
    cudaMemcpyAsync(m->host, m->out, (size_t)n * sizeof(float), cudaMemcpyDeviceToHost, m->stream);
    cudaStreamSynchronize(m->stream);
    return m->host;
}

static int run(memory *m, plant p)
{
    static float on_host[THREADS];
    int wrong = 0;
    if (p <= NO_LAST_BARRIER || p == NOT_INITIALISED || p == BEYOND_STATIC) {
        VL_LAUNCH(sums, 2, THREADS, 0, m->stream, m->out, p);
        wrong |= check("sums", results(m, 2 * ROUNDS * THREADS), 2 * ROUNDS * THREADS, wanted_sum);
    }
    if (p == CLEAN || p == NO_SYNCWARP || p == NO_DYNAMIC_INITIALISED || p == BEYOND_DYNAMIC) {
        VL_LAUNCH(reversed, 1, THREADS, THREADS * sizeof(float), m->stream, m->out, p);
        wrong |= check("reversed", results(m, THREADS), THREADS, wanted_reversed);
    }
    if (p == CLEAN || p == DIVERGENT_BARRIER || p == EXITED_AT_BARRIER) {
        VL_LAUNCH(barriers, 1, THREADS, 0, m->stream, m->out, p);
        wrong |= check("barriers", results(m, THREADS), THREADS, wanted_one);
    }
    if (p == CLEAN || (p >= EXITED_LANE && p <= DIFFERENT_OPERATIONS)) {
        VL_LAUNCH(lanes, 1, THREADS, 0, m->stream, m->out, p);
        wrong |= check("lanes", results(m, THREADS), THREADS, wanted_first_lane);
    }
    if (p == CLEAN || p == BEYOND_GLOBAL || p >= HOST_POINTER) {
        VL_LAUNCH(globals, 2, THREADS, 0, m->stream, m->out, on_host, m->counter, p);
        wrong |= check("globals", results(m, 2 * THREADS), 2 * THREADS, wanted_one);
    }
    if (p == CLEAN) {
        VL_LAUNCH(warps, 1, THREADS, 0, m->stream, m->out);
        wrong |= check("warps", results(m, THREADS), THREADS, wanted_whole_warps);
        VL_LAUNCH(warps, 1, THREADS - 24, 0, m->stream, m->out);
        wrong |= check("warps", results(m, THREADS - 24), THREADS - 24, wanted_part_of_warp);
    }
    return wrong;
}

int main(int argc, char **argv)
{
    static memory m;
    int p = 0;
    if (argc != 2 || sscanf(argv[1], "%d", &p) != 1)
        return 2;
    /* globals ends at the end of its memory */
    size_t floats = p == BEYOND_GLOBAL ? 2 * THREADS : 2 * ROUNDS * THREADS;
    cudaStreamCreateWithFlags(&m.stream, cudaStreamNonBlocking);
    cudaMalloc(&m.out, floats * sizeof(float));
    cudaMalloc(&m.counter, sizeof *m.counter);
    cudaMemsetAsync(m.counter, 0, sizeof *m.counter, m.stream);
    int wrong = run(&m, (plant)p);
    if (cudaGetLastError() != cudaSuccess)
        wrong |= printf("wrong: a launch failed\n") > 0;
    cudaFree(m.out);
    cudaFree(m.counter);
    cudaStreamDestroy(m.stream);
    if (!wrong)
        printf("ok\n");
    return wrong;
}
