/* ---- Kernels. A map lies in memory position by position, each with all its channels. Behind the
 * last column is one more, so that the windows of a whole map have one distance: what is computed
 * there is not used, and what a 3x3 convolution reads there is 0. */

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
#endif

#if defined(__GNUC__) && !defined(SQZ_PLAIN)
#define VECTORS 1 /* GCC's vector types; without them, plain C */
#else
#define VECTORS 0
#endif

#if VECTORS && defined(__AVX512F__)
#define LANES 16
#define TILE 12
#elif VECTORS && defined(__AVX__)
#define LANES 8
#define TILE 6
#elif VECTORS && defined(__aarch64__)
#define LANES 4
#define TILE 12
#else
#define LANES 4
#define TILE 6
#endif
#define PANEL (2 * LANES) /* outputs whose weights lie together */
#define PANELS(outputs) (((outputs) + PANEL - 1) / PANEL)
#define PADDED(outputs) (PANELS(outputs) * PANEL)
#define CHUNK (8 * TILE) /* positions that share the weights of a panel in the cache */

enum { LINEAR, ACTIVATED, ADDED }; /* what becomes of the outputs of a convolution */

#ifdef SQZ_THREADS
#define PARALLEL_FOR _Pragma("omp parallel for schedule(static)")
#define BLOCKS MAX_BLOCKS /* of rows of conv1 that threads compute at the same time */
#else
#define PARALLEL_FOR
#define BLOCKS 1
#endif

static float activation(float x)
{
#if ELU
    return x > 0 ? x : expm1f(x);
#else
    return x > 0 ? x : 0;
#endif
}

#if VECTORS
#define INLINE static inline __attribute__((always_inline))
typedef float vector __attribute__((vector_size(4 * LANES)));
typedef float vector_in_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES)));

INLINE vector load(const float *x) { return *(const vector_in_memory *)x; }

INLINE void store(float *y, vector a, vector b, int outputs, int mode)
{
    if (outputs < PANEL || (ELU && mode == ACTIVATED)) {
        float values[PANEL];
        *(vector_in_memory *)values = a;
        *(vector_in_memory *)(values + LANES) = b;
        for (int i = 0; i < PANEL && i < outputs; i++)
            y[i] = mode == ACTIVATED ? activation(values[i])
                                     : values[i] + (mode == ADDED ? y[i] : 0);
        return;
    }
    if (mode == ACTIVATED) {
        const vector zero = {0};
        a = (vector)((mask)a & (a > zero));
        b = (vector)((mask)b & (b > zero));
    } else if (mode == ADDED) {
        a += load(y);
        b += load(y + LANES);
    }
    *(vector_in_memory *)y = a;
    *(vector_in_memory *)(y + LANES) = b;
}

#if TILE == 12
#define EACH(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#else
#define EACH(F) F(0) F(1) F(2) F(3) F(4) F(5)
#endif
#define DECLARE(i) vector a##i = bias_a, b##i = bias_b;
#define MULTIPLY(i) a##i += from[i * step] * wa, b##i += from[i * step] * wb;
#define STORE(i) if (i < count) store(y + i * y_step, a##i, b##i, outputs, mode);

/* TILE positions of PANEL outputs: windows of `rows` runs of numbers, each `pitch` behind the last.
 * The windows of two neighbours are `step` apart. */
INLINE void tile(const float *x, size_t step, int count, int rows, size_t pitch, size_t run,
                 const float *weights, const float *bias, int outputs, float *y, size_t y_step,
                 int mode)
{
    const vector bias_a = load(bias), bias_b = load(bias + LANES);
    EACH(DECLARE)
    for (int row = 0; row < rows; row++, x += pitch)
        for (const float *from = x; from < x + run; from++, weights += PANEL) {
            const vector wa = load(weights), wb = load(weights + LANES);
            EACH(MULTIPLY)
        }
    EACH(STORE)
}

#else
#define INLINE static

static void tile(const float *x, size_t step, int count, int rows, size_t pitch, size_t run,
                 const float *weights, const float *bias, int outputs, float *y, size_t y_step,
                 int mode)
{
    for (int i = 0; i < count; i++, y += y_step) {
        float sums[PANEL];
        const float *w = weights;
        memcpy(sums, bias, sizeof sums);
        for (int row = 0; row < rows; row++)
            for (size_t k = 0; k < run; k++, w += PANEL)
                for (int j = 0; j < PANEL; j++) sums[j] += x[i * step + row * pitch + k] * w[j];
        for (int j = 0; j < PANEL && j < outputs; j++)
            y[j] = mode == ACTIVATED ? activation(sums[j]) : sums[j] + (mode == ADDED ? y[j] : 0);
    }
}
#endif

#define CHUNKS(count) (((count) + CHUNK - 1) / CHUNK)

/* CHUNK positions of one panel of a convolution; see `tile`. Part 0 is the first panel of the first
 * chunk, part 1 its second panel. `weights` are packed: panel, window, output. */
INLINE void part(int index, const float *x, size_t step, int count, int rows, size_t pitch,
                 size_t run, const float *weights, const float *bias, int outputs, float *y,
                 size_t y_step, int mode)
{
    const int panel = index % PANELS(outputs), first = index / PANELS(outputs) * CHUNK;
    const int last = first + CHUNK < count ? first + CHUNK : count;
    for (int at = first; at < last; at += TILE)
        tile(x + at * step, step, last - at, rows, pitch, run,
             weights + panel * rows * run * PANEL, bias + panel * PANEL, outputs - panel * PANEL,
             y + at * y_step + panel * PANEL, y_step, mode);
}

/* Defines a convolution whose windows are STEP numbers apart, a constant for the compiler. */
#define CONVOLUTION(STEP)                                                                        \
    static void convolution_##STEP(const float *x, int count, int rows, size_t pitch, size_t run, \
                                   const float *weights, const float *bias, int outputs,         \
                                   float *y, size_t y_step, int mode)                            \
    {                                                                                            \
        const int parts = CHUNKS(count) * PANELS(outputs);                                       \
        PARALLEL_FOR                                                                             \
        for (int i = 0; i < parts; i++)                                                          \
            part(i, x, STEP, count, rows, pitch, run, weights, bias, outputs, y, y_step, mode);  \
    }

/* The frame of zeros that a 3x3 convolution reads: `x` starts with it. */
static void clear_frame(float *x, int height, int width, size_t channels)
{
    const size_t row = (width + 1) * channels;
    memset(x, 0, (row + channels) * sizeof *x);
    for (int i = 1; i <= height; i++) memset(x + i * row, 0, channels * sizeof *x);
    memset(x + (height + 1) * row, 0, (row + channels) * sizeof *x);
}

/* One row of a 3x3 max pool of stride 2; a window may lie partly outside, as Caffe has it. */
static void pool_row(const float *const rows[3], int count, int width, size_t channels, float *y)
{
    for (int at = 0; 2 * at + 1 < width; at++, y += channels) {
        memcpy(y, rows[0] + 2 * at * channels, channels * sizeof *y);
        for (int i = 0; i < count; i++)
            for (int j = 2 * at; j < 2 * at + 3 && j < width; j++) {
                const float *x = rows[i] + j * channels;
                for (size_t k = 0; k < channels; k++) y[k] = x[k] > y[k] ? x[k] : y[k];
            }
    }
}

static void max_pool(const float *x, int height, int width, size_t channels, float *y)
{
    const size_t row = (width + 1) * channels, y_row = (width / 2 + 1) * channels;
    const int rows = height / 2;
    PARALLEL_FOR
    for (int i = 0; i < rows; i++) {
        const float *from[3];
        for (int j = 0; j < 3; j++) from[j] = x + (2 * i + j) * row;
        pool_row(from, 2 * i + 2 < height ? 3 : 2, width, channels, y + i * y_row);
    }
}

/* conv1, of stride 2, and pool1. A block of rows of pool1 has room for 3 rows of conv1, of which a
 * new one takes the place of the oldest. The row between two blocks is computed for both. */
static void conv1_and_pool1(const float *x, int kernel, const float *weights, const float *bias,
                            int channels, int height, int width, float *rows, float *y)
{
    const size_t row = (size_t)width * channels, y_row = (size_t)(width / 2 + 1) * channels;
    const int parts = CHUNKS(width) * PANELS(channels);
    PARALLEL_FOR
    for (int block = 0; block < BLOCKS; block++) {
        const int first = height / 2 * block / BLOCKS, end = height / 2 * (block + 1) / BLOCKS;
        float *ring = rows + block * 3 * row;
        for (int i = first, ready = 2 * first; i < end; i++) {
            const float *from[3];
            const int last = 2 * i + 3 < height ? 2 * i + 3 : height;
            for (; ready < last; ready++)
                for (int j = 0; j < parts; j++)
                    part(j, x + ready * 2 * 3 * SQZ_SIDE, 6, width, kernel, 3 * SQZ_SIDE,
                         3 * kernel, weights, bias, channels, ring + ready % 3 * row, channels,
                         ACTIVATED);
            for (int j = 0; j < 3; j++) from[j] = ring + (2 * i + j) % 3 * row;
            pool_row(from, last - 2 * i, width, channels, y + i * y_row);
        }
    }
}

/* The mean of each channel over a map. */
static void means(const float *x, int height, int width, size_t channels, float *y)
{
    for (size_t first = 0; first < channels; first += LANES) {
        const size_t count = channels - first < LANES ? channels - first : LANES;
        double total[LANES] = {0};
        for (int i = 0; i < height; i++) {
            const float *row = x + i * (width + 1) * channels + first;
            float sum[LANES] = {0};
            for (int j = 0; j < width; j++, row += channels)
                for (size_t k = 0; k < count; k++) sum[k] += row[k];
            for (size_t k = 0; k < count; k++) total[k] += sum[k];
        }
        for (size_t k = 0; k < count; k++)
            y[first + k] = (float)(total[k] / ((double)height * width));
    }
}
