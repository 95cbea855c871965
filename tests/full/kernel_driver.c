// Calls compiled kernels with inputs from a file and compares what they give with what the file expects of them.
// test_driven_kernels.py compiles this, writes the file with torch and runs the program: for 64-bit ARM under qemu, where
// a whole torch would be slow and hard to come by, and for this machine with sanitizers, which torch does not stand.
//
// The file is a row of cases, each of (little-endian)
//     char function[16], name[112]                   filled up with zeros
//     int64 numbers, inputs, outputs                 how many follow
//     double numbers[]                               sizes, strides and options
//     for each input: int64 length, float values[]
//     for each output: int64 length, double allowed, double expected[]
// in the order in which the functions below take them. An array of length 0 is a null pointer. `allowed` is the largest
// difference; where no number is expected, none must come. Each case runs with one thread and with two.

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block.c"  // for its structs; the other sources are linked

int norm_act(const float *y, float *out, long rows, long c, const float *scale, const float *shift, float eps,
             int act, float top, float *mean, float *rstd, float *running_mean, float *running_var, float momentum,
             int threads);
int norm_act_back(const float *g, const float *y, float *dy, long rows, long c, const float *scale,
                  const float *shift, int act, float top, const float *mean, const float *rstd, float *for_scale,
                  float *for_shift, int threads);
int depthwise_back(const float *dy, const float *x, const float *w, const long *w_stride, float *dx, float *for_w,
                   const long *for_stride, long n, long h, long wd, long c, long k, long s, long oh, long ow,
                   int threads);

#define MOST 64  // numbers, inputs or outputs of a case

typedef struct { long length; float *values; } Input;
typedef struct { long length; double allowed, *expected; float *computed; } Output;

static struct {
    char function[17], name[113];
    int64_t numbers, inputs, outputs;
    double number[MOST];
    Input input[MOST];
    Output output[MOST];
    int number_at, input_at, output_at;  // the next that is taken
} now;

static void stop(const char *why) {
    printf("FAIL %s: %s\n", now.name, why);
    exit(2);
}

static void outside(int signal) {
    (void)signal;
    const char said[] = ": reads or writes outside of an array\n";
    ssize_t done = write(1, "FAIL ", 5) + write(1, now.name, strlen(now.name)) + write(1, said, sizeof said - 1);
    _exit(done ? 2 : 3);
}

// n floats right before memory that cannot be touched, so that a step beyond the last one is noticed. Never given back.
static float *room(long n) {
    if (!n) return NULL;
    long page = sysconf(_SC_PAGESIZE), bytes = n * sizeof(float), pages = (bytes + page - 1) / page * page;
    char *p = mmap(NULL, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + pages, page, PROT_NONE)) stop("no memory");
    return (float *)(p + pages - bytes);
}

// --- the file --------------------------------------------------------------------------------------------------

static FILE *file;

static void get(void *into, size_t size, size_t n) {
    if (fread(into, size, n, file) != n) stop("the file ends within a case");
}

static int64_t get_count(int64_t most) {
    int64_t n;
    get(&n, sizeof n, 1);
    if (n < 0 || n > most) stop("the file is not as it should be");
    return n;
}

static int read_case(void) {
    memset(&now, 0, sizeof now);
    size_t found = fread(now.function, 1, 16, file);
    if (!found) return 0;
    if (found < 16) stop("the file ends within a case");
    get(now.name, 1, 112);
    now.numbers = get_count(MOST);
    now.inputs = get_count(MOST);
    now.outputs = get_count(MOST);
    get(now.number, sizeof(double), now.numbers);
    for (int i = 0; i < now.inputs; i++) {
        Input *in = now.input + i;
        in->length = get_count(1 << 28);
        in->values = room(in->length);
        get(in->values, sizeof(float), in->length);
    }
    for (int i = 0; i < now.outputs; i++) {
        Output *out = now.output + i;
        out->length = get_count(1 << 28);
        get(&out->allowed, sizeof(double), 1);
        out->expected = malloc(out->length * sizeof(double) + 1);
        if (!out->expected) stop("no memory");
        get(out->expected, sizeof(double), out->length);
    }
    return 1;
}

// --- what a function takes -------------------------------------------------------------------------------------

static double number(void) {
    if (now.number_at == now.numbers) stop("it has too few numbers");
    return now.number[now.number_at++];
}

static Input *next_input(void) {
    if (now.input_at == now.inputs) stop("it has too few inputs");
    return now.input + now.input_at++;
}

static float *input(void) { return next_input()->values; }

// Ones at first: gradients are added to what is there.
static float *output(void) {
    if (now.output_at == now.outputs) stop("it has too few outputs");
    Output *out = now.output + now.output_at++;
    out->computed = room(out->length);
    for (long i = 0; i < out->length; i++) out->computed[i] = 1.0f;
    return out->computed;
}

// The next output, which begins as the next input.
static float *changed(void) {
    const Input *in = next_input();
    float *out = output();
    if (in->length != now.output[now.output_at - 1].length) stop("an output is not as long as its input");
    if (out) memcpy(out, in->values, in->length * sizeof(float));
    return out;
}

static void strides(long *into) { for (int i = 0; i < 3; i++) into[i] = number(); }

// --- the functions ---------------------------------------------------------------------------------------------

static int run_norm_act(int threads) {
    long rows = number(), c = number();
    int act = number();
    float top = number(), eps = number(), momentum = number();
    const float *y = input(), *scale = input(), *shift = input();
    float *out = output(), *mean = output(), *rstd = output(), *known_mean = changed(), *known_var = changed();
    return norm_act(y, out, rows, c, scale, shift, eps, act, top, mean, rstd, known_mean, known_var, momentum, threads);
}

static int run_norm_act_back(int threads) {
    long rows = number(), c = number();
    int act = number();
    float top = number();
    const float *g = input(), *y = input(), *scale = input(), *shift = input(), *mean = input(), *rstd = input();
    float *dy = output(), *for_scale = output(), *for_shift = output();
    return norm_act_back(g, y, dy, rows, c, scale, shift, act, top, mean, rstd, for_scale, for_shift, threads);
}

static int run_depthwise_back(int threads) {
    long n = number(), h = number(), w = number(), c = number(), k = number(), s = number();
    long oh = number(), ow = number(), stride[3], for_stride[3], begin, for_begin;
    begin = number();
    strides(stride);
    for_begin = number();
    strides(for_stride);
    const float *dy = input(), *x = input(), *weight = input();
    float *dx = output(), *for_w = output();
    return depthwise_back(dy, x, weight + begin, stride, dx, for_w + for_begin, for_stride, n, h, w, c, k, s, oh, ow,
                          threads);
}

enum { TRAIN, BACK, EVAL };

static Conv conv_of(long channels, int mode) {
    Conv v = {0};
    long begin = number();
    strides(v.stride);
    v.momentum = number();
    v.w = input() + begin;
    v.scale = input();
    v.shift = input();
    v.mean = room(channels);
    v.rstd = room(channels);
    if (mode == BACK) {
        v.for_w = output() + begin;
        v.for_scale = output();
        v.for_shift = output();
    } else {
        v.running_mean = mode == TRAIN ? changed() : input();
        v.running_var = mode == TRAIN ? changed() : input();
    }
    return v;
}

// `inverted_back` after `inverted`: what the one keeps for the other is between the two.
static int run_block(int mode, int threads) {
    Inverted v = {0};
    for (long *into[] = {&v.n, &v.h, &v.w, &v.oh, &v.ow, &v.in, &v.hidden, &v.out, &v.k, &v.s}, i = 0; i < 10; i++)
        *into[i] = number();
    v.expands = number();
    v.residual = number();
    v.act = number();
    v.top = number();
    v.eps = number();
    const float *x = input(), *g = mode == BACK ? input() : NULL;
    float *result = output();
    if (v.expands) v.expand = conv_of(v.hidden, mode);
    v.depthwise = conv_of(v.hidden, mode);
    v.project = conv_of(v.out, mode);
    if (mode == EVAL) return inverted_eval(&v, x, result, threads);
    long after = v.n * v.oh * v.ow;
    float *y1 = room(v.expands ? v.n * v.h * v.w * v.hidden : 0), *y2 = room(after * v.hidden);
    float *y3 = room(after * v.out);
    if (mode == TRAIN) return inverted(&v, x, y1, y2, y3, result, threads);
    return inverted(&v, x, y1, y2, y3, room(after * v.out), threads)
        || inverted_back(&v, x, y1, y2, y3, g, result, threads);
}

static int run(int threads) {
    now.number_at = now.input_at = now.output_at = 0;
    const char *name = now.function;
    int failed = 0;
    if (!strcmp(name, "norm_act")) failed = run_norm_act(threads);
    else if (!strcmp(name, "norm_act_back")) failed = run_norm_act_back(threads);
    else if (!strcmp(name, "depthwise_back")) failed = run_depthwise_back(threads);
    else if (!strcmp(name, "inverted")) failed = run_block(TRAIN, threads);
    else if (!strcmp(name, "inverted_back")) failed = run_block(BACK, threads);
    else if (!strcmp(name, "inverted_eval")) failed = run_block(EVAL, threads);
    else stop("no such function");
    if (now.number_at < now.numbers || now.input_at < now.inputs || now.output_at < now.outputs)
        stop("it has too many numbers or arrays");
    return failed;
}

// --- comparing -------------------------------------------------------------------------------------------------

// The largest difference; infinite where only one of two is a number.
static double difference(const Output *out) {
    double most = 0.0;
    for (long i = 0; i < out->length; i++) {
        double mine = out->computed[i], right = out->expected[i];
        double apart = isnan(mine) && isnan(right) ? 0.0 : mine == right ? 0.0 : fabs(mine - right);
        if (isnan(apart)) return INFINITY;
        if (apart > most) most = apart;
    }
    return most;
}

static int differs(int threads) {
    for (int i = 0; i < now.outputs; i++) {
        double apart = difference(now.output + i);
        if (apart <= now.output[i].allowed) continue;
        printf("FAIL %s: output %d differs by %.1e, allowed %.1e, with %d thread%s\n", now.name, i + 1, apart,
               now.output[i].allowed, threads, threads > 1 ? "s" : "");
        return 1;
    }
    return 0;
}

static int fails(void) {
    float *alone[MOST];
    for (int threads = 1; threads <= 2; threads++) {
        if (run(threads)) {
            printf("FAIL %s: no memory for its working space\n", now.name);
            return 1;
        }
        if (differs(threads)) return 1;
        for (int i = 0; i < now.outputs; i++) {
            const Output *out = now.output + i;
            if (threads == 1) alone[i] = out->computed;
            else if (out->length && memcmp(alone[i], out->computed, out->length * sizeof(float))) {
                printf("FAIL %s: output %d is not the same with 1 and 2 threads\n", now.name, i + 1);
                return 1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    long cases = 0, failed = 0;
    signal(SIGSEGV, outside);
    printf("unit %s\n", UNIT);
    #ifdef __aarch64__
    if (strcmp(UNIT, "NEON")) {
        printf("FAIL: not compiled for NEON\n");
        return 2;
    }
    #endif
    if (argc != 2 || !(file = fopen(argv[1], "rb"))) {
        printf("FAIL: kernel_driver FILE\n");
        return 2;
    }
    while (read_case()) {
        int wrong = fails();
        cases++;
        failed += wrong;
        if (!wrong) printf("ok %s\n", now.name);
        fflush(stdout);  // so that the lines before a crash are seen
        for (int i = 0; i < now.outputs; i++) free(now.output[i].expected);
    }
    printf("%ld cases, %ld failed\n", cases, failed);
    return failed || !cases;
}
