/* ---- The weights file. Its format is specified in squeezenet_paddle/sqz/format.py. */

#define SLOTS 16384 /* the sum of the frequencies of a table */
#define CODERS 256 /* the lanes of the coder */
#define PAIRS 16 /* of tables, at most */
#define INDICES 511 /* the largest index */
#define SCALES 40
#define HEADER 24

static unsigned u16(const unsigned char *p) { return p[0] | (unsigned)p[1] << 8; }
static uint32_t u32(const unsigned char *p) { return u16(p) | (uint32_t)u16(p + 2) << 16; }

static float f32(const unsigned char *p)
{
    const uint32_t bits = u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float f16(const unsigned char *p)
{
    const unsigned bits = u16(p), exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = ldexpf((float)(exponent ? fraction + 1024 : fraction),
                         (int)(exponent ? exponent : 1) - 25);
    if (exponent == 31) value = INFINITY; /* or NaN; both are refused */
    return bits >> 15 ? -value : value;
}

static uint32_t crc32(const unsigned char *p, size_t count)
{
    uint32_t table[256], crc = 0xffffffff;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t x = i;
        for (int j = 0; j < 8; j++) x = x >> 1 ^ (x & 1 ? 0xedb88320 : 0);
        table[i] = x;
    }
    while (count--) crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
    return ~crc;
}

/* Whether the description has the lines of this network. Those of the preprocessing may lack. */
static int describes_this(const char *text, size_t bytes)
{
    char found[NETWORK_LINES] = {0};
    for (size_t at = 0; at < bytes;) {
        const char *line = text + at, *end = memchr(line, '\n', bytes - at);
        const size_t length = end ? (size_t)(end - line) : 0;
        int known = 0;
        if (!end) return 0;
        for (size_t i = 0; i < sizeof description / sizeof *description; i++) {
            const size_t key = strcspn(description[i], " ") + 1;
            if (length < key || memcmp(line, description[i], key)) continue;
            if (length != strlen(description[i]) || memcmp(line, description[i], length)) return 0;
            known = 1;
            if (i < NETWORK_LINES && found[i]++) return 0;
        }
        if (!known && length > 10 && !memcmp(line, "preprocess", 10)) return 0;
        at += length + 1;
    }
    return !memchr(found, 0, NETWORK_LINES);
}

/* An array of the file: where its numbers or its tables are. */
typedef struct {
    int kind; /* 0 f32, 1 f16, 2 indices, 3 one f32 for all */
    float unit;
    const unsigned char *data; /* numbers; or the tables of the scales and of the choices */
} record;

/* Frequencies of symbols: sums[k] is the sum of those of all symbols below low + k. */
typedef struct {
    int low, count;
    uint16_t *sums;
} table;

/* What decodes the indices of all arrays. */
typedef struct {
    const unsigned char *words, *end;
    uint32_t lanes[CODERS];
    int failed; /* whether words were missing */
    unsigned pairs;
    table tables[2 * PAIRS], scale, choice;
    uint16_t sums[2 * PAIRS * (2 * INDICES + 2)], sums_of_columns[2][256 + 1];
    unsigned char scales[MOST_COLUMNS], choices[MOST_COLUMNS], states[MOST_OUTPUTS];
} decoder;
typedef char decoder_fits[sizeof(decoder) <= DECODER_FLOATS * sizeof(float) ? 1 : -1];

static size_t window_of(size_t i) /* values of each output of an array */
{
    const size_t kernel = arrays[i].kernel;
    return kernel ? arrays[i].inputs * kernel * kernel : 1;
}

/* Reads a table of symbols from `least` to `most`; returns where what follows starts, or NULL. */
static const unsigned char *read_table(const unsigned char *p, const unsigned char *end, int least,
                                       int most, table *t, uint16_t *sums)
{
    unsigned total = 0;
    int k = 0;
    if (!p || end - p < 4) return NULL;
    t->low = (int)u16(p) - (p[1] > 127 ? 65536 : 0);
    t->count = (int)u16(p + 2);
    t->sums = sums;
    if (!t->count || t->low < least || t->low + t->count - 1 > most) return NULL;
    p += 4;
    while (k < t->count) {
        if (end - p < 2) return NULL; /* the checksum follows, so that there are two */
        if (!*p) {
            if (p[1] >= t->count - k) return NULL;
            for (int more = p[1] + 1; more--; k++) sums[k] = (uint16_t)total;
            p += 2;
        } else {
            sums[k++] = (uint16_t)total;
            if (*p > 127 && !p[1]) return NULL;
            total += *p < 128 ? *p : *p - 128 + 128u * p[1];
            p += *p < 128 ? 1 : 2;
            if (total > SLOTS) return NULL;
        }
    }
    sums[k] = (uint16_t)total;
    return total == SLOTS ? p : NULL;
}

/* Reads the tables of the scales and of the choices of an array. */
static const unsigned char *read_columns(const unsigned char *p, const unsigned char *end,
                                         decoder *d)
{
    p = read_table(p, end, 0, 255, &d->scale, d->sums_of_columns[0]);
    return read_table(p, end, 0, 255, &d->choice, d->sums_of_columns[1]);
}

/* Reads the head of array i; returns where the next one starts, or NULL. */
static const unsigned char *read_record(size_t i, const unsigned char *p, const unsigned char *end,
                                        record *array, decoder *d)
{
    const size_t count = arrays[i].outputs * window_of(i);
    if (end - p < 5 || p[0] > 3 || u32(p + 1) != count) return NULL;
    array->kind = p[0];
    array->data = p += 5;
    if (array->kind != 2) {
        const size_t bytes = array->kind == 3 ? 4 : count * (array->kind ? 2 : 4);
        return (size_t)(end - p) < bytes ? NULL : p + bytes;
    }
    if (!arrays[i].kernel || end - p < 4) return NULL;
    array->unit = f32(p);
    array->data = p + 4;
    return read_columns(p + 4, end, d);
}

/* The next symbol of a lane. */
static int symbol(decoder *d, size_t lane, const table *t)
{
    const uint32_t x = d->lanes[lane], slot = x % SLOTS;
    int low = 0, high = t->count - 1; /* the first whose sum with its own frequency is above slot */
    while (low < high) {
        const int middle = (low + high) / 2;
        if (t->sums[middle + 1] > slot) high = middle;
        else low = middle + 1;
    }
    d->lanes[lane] = (uint32_t)(t->sums[low + 1] - t->sums[low]) * (x / SLOTS) + slot - t->sums[low];
    if (d->lanes[lane] < 65536) {
        if (d->words == d->end) {
            d->failed = 1;
        } else {
            d->lanes[lane] = d->lanes[lane] << 16 | u16(d->words);
            d->words += 2;
        }
    }
    return t->low + low;
}

/* Where value k of output o of array i goes: panels of outputs, in them the window as a
 * convolution runs over it, row, column, channel. */
static size_t place_of(size_t i, size_t o, size_t k)
{
    const size_t kernel = arrays[i].kernel, area = kernel * kernel;
    if (!kernel) return arrays[i].at + o;
    k = k % area * arrays[i].inputs + k / area;
    return arrays[i].at + (o / PANEL * window_of(i) + k) * PANEL + o % PANEL;
}

/* Decodes an array of indices; returns whether all weights are finite. */
static int read_indices(size_t i, const record *array, decoder *d, float *weights)
{
    static const unsigned factors[] = {16, 19, 23, 27};
    static const unsigned char next[4][2] = {{0, 2}, {2, 0}, {1, 3}, {3, 1}};
    const size_t columns = window_of(i), outputs = arrays[i].outputs;
    if (!read_columns(array->data, d->end, d)) return 0;
    for (size_t k = 0; k < columns; k++)
        if ((d->scales[k] = (unsigned char)symbol(d, k % CODERS, &d->scale)) >= SCALES) return 0;
    for (size_t k = 0; k < columns; k++)
        if ((d->choices[k] = (unsigned char)symbol(d, k % CODERS, &d->choice)) >= d->pairs) return 0;
    memset(d->states, 0, outputs);
    for (size_t k = 0; k < columns; k++) {
        const unsigned scale = d->scales[k];
        const float step = array->unit * (float)(factors[scale % 4] << scale / 4);
        for (size_t o = 0; o < outputs; o++) {
            const int second = d->states[o] > 1;
            const int q = symbol(d, o % CODERS, &d->tables[2 * d->choices[k] + second]);
            const int whole = 2 * q - (second ? (q > 0) - (q < 0) : 0);
            const float value = (float)whole * step;
            if (!isfinite(value)) return 0;
            weights[place_of(i, o, k)] = value;
            d->states[o] = next[d->states[o]][q & 1];
        }
        if (d->failed) return 0;
    }
    return 1;
}

/* Reads all arrays into `weights`. */
static int read_arrays(const unsigned char *p, const unsigned char *end, size_t words,
                       float *weights, decoder *d)
{
    record records[ARRAYS];
    memset(d, 0, sizeof *d);
    d->end = end;
    if (p == end || (d->pairs = *p++) > PAIRS) return SQZ_DAMAGED;
    for (size_t i = 0; i < 2 * d->pairs; i++) {
        uint16_t *sums = d->sums + i * (2 * INDICES + 2);
        if (!(p = read_table(p, end, -INDICES, INDICES, &d->tables[i], sums))) return SQZ_DAMAGED;
    }
    for (size_t i = 0; i < ARRAYS; i++)
        if (!(p = read_record(i, p, end, &records[i], d))) return SQZ_DAMAGED;
    memset(weights, 0, WEIGHTS * sizeof *weights); /* of outputs that only fill a panel */
    if (words > (size_t)(end - p) / 2) return SQZ_DAMAGED;
    if ((size_t)(end - p) != 4 * CODERS + 2 * words) return SQZ_DAMAGED;
    for (size_t i = 0; i < CODERS; i++, p += 4)
        if ((d->lanes[i] = u32(p)) < SLOTS) return SQZ_DAMAGED;
    d->words = p;
    for (size_t i = 0; i < ARRAYS; i++) {
        const record *array = &records[i];
        const size_t window = window_of(i);
        if (array->kind == 2) {
            if (!read_indices(i, array, d, weights)) return SQZ_DAMAGED;
            continue;
        }
        for (size_t o = 0, n = 0; o < arrays[i].outputs; o++) {
            for (size_t k = 0; k < window; k++, n++) {
                const float value = array->kind == 1
                                        ? f16(array->data + 2 * n)
                                        : f32(array->data + (array->kind ? 0 : 4 * n));
                if (!isfinite(value)) return SQZ_DAMAGED;
                weights[place_of(i, o, k)] = value;
            }
        }
    }
    for (size_t i = 0; i < CODERS; i++)
        if (d->lanes[i] != 65536) return SQZ_DAMAGED;
    return d->words == end ? SQZ_OK : SQZ_DAMAGED;
}

static int read_file(const unsigned char *file, size_t bytes, float *weights, decoder *d)
{
    size_t described;
    if (bytes < HEADER + 4 || memcmp(file, "\x89SQZ\r\n\x1a\n", 8)) return SQZ_NO_SQZ;
    if (u16(file + 8) != 2) return SQZ_OTHER_VERSION;
    if (u32(file + 12) != bytes) return SQZ_CUT;
    if (u32(file + bytes - 4) != crc32(file, bytes - 4)) return SQZ_CHECKSUM;
    described = u32(file + 16);
    if (described > bytes - HEADER - 4) return SQZ_DAMAGED;
    if (!describes_this((const char *)file + HEADER, described)) return SQZ_OTHER_NETWORK;
    if (u16(file + 10) != ARRAYS) return SQZ_DAMAGED;
    return read_arrays(file + HEADER + described, file + bytes - 4, u32(file + 20), weights, d);
}
