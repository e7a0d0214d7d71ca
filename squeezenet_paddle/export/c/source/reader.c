/* ---- The weights file. Its format is specified in squeezenet_paddle/sqz/format.py. */

#define SLOTS 16384 /* the sum of the frequencies of a table */
#define CODERS 256 /* the lanes of the coder */
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
    unsigned found = 0;
    for (size_t at = 0; at < bytes;) {
        const char *line = text + at, *end = memchr(line, '\n', bytes - at);
        const size_t length = end ? (size_t)(end - line) : bytes - at;
        int known = 0;
        for (size_t i = 0; i < sizeof description / sizeof *description; i++) {
            const size_t key = strcspn(description[i], " ") + 1;
            if (length < key || memcmp(line, description[i], key)) continue;
            if (length != strlen(description[i]) || memcmp(line, description[i], length)) return 0;
            known = 1;
            found += i < NETWORK_LINES;
        }
        if (!known && length > 10 && !memcmp(line, "preprocess", 10)) return 0;
        at += length + 1;
    }
    return found == NETWORK_LINES;
}

/* An array of the file: where its numbers or its table are. */
typedef struct {
    int kind; /* 0 f32, 1 f16, 2 indices */
    int low, frequencies;
    float unit;
    unsigned factors;
    const unsigned char *data; /* numbers; or factors, and behind them the frequencies */
} record;

/* What decodes one array of indices. */
typedef struct {
    int16_t index[SLOTS];
    uint16_t frequency[SLOTS], offset[SLOTS];
} decoder;

static size_t window_of(size_t i) /* values of each output of an array */
{
    const size_t kernel = arrays[i].kernel;
    return kernel ? arrays[i].inputs * kernel * kernel : 1;
}

/* Reads the head of array i; returns where the next one starts, or NULL. */
static const unsigned char *read_record(size_t i, const unsigned char *p,
                                        const unsigned char *end, record *array)
{
    const size_t count = arrays[i].outputs * window_of(i);
    unsigned total = 0;
    if (end - p < 5 || p[0] > 2 || u32(p + 1) != count) return NULL;
    array->kind = p[0];
    p += 5;
    if (array->kind < 2) {
        const size_t bytes = count * (array->kind ? 2 : 4);
        array->data = p;
        return (size_t)(end - p) < bytes ? NULL : p + bytes;
    }
    if (!arrays[i].kernel || end - p < 6) return NULL;
    array->unit = f32(p);
    array->factors = u16(p + 4);
    array->data = p += 6;
    if (array->factors != 1 && array->factors != arrays[i].outputs) return NULL;
    if (end - p < (ptrdiff_t)array->factors + 4) return NULL;
    p += array->factors;
    array->low = (int)u16(p) - (p[1] > 127 ? 65536 : 0);
    array->frequencies = (int)u16(p + 2);
    p += 4;
    if (!array->frequencies || array->low < -8191 || array->low + array->frequencies > 8192)
        return NULL;
    for (int k = 0; k < array->frequencies; k++) {
        if (end - p < 2) return NULL; /* the checksum follows, so that there are two */
        total += *p < 128 ? *p : *p - 128 + 128u * p[1];
        p += *p < 128 ? 1 : 2;
    }
    return total == SLOTS ? p : NULL;
}

static void make_decoder(const record *array, decoder *table)
{
    const unsigned char *p = array->data + array->factors + 4;
    for (int k = 0, slot = 0; k < array->frequencies; k++) {
        const unsigned frequency = *p < 128 ? *p : *p - 128 + 128u * p[1];
        p += *p < 128 ? 1 : 2;
        for (unsigned offset = 0; offset < frequency; offset++, slot++) {
            table->index[slot] = (int16_t)(array->low + k);
            table->frequency[slot] = (uint16_t)frequency;
            table->offset[slot] = (uint16_t)offset;
        }
    }
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

/* Reads all arrays into `weights`. */
static int read_arrays(const unsigned char *p, const unsigned char *end, size_t words,
                       float *weights, decoder *table)
{
    record records[ARRAYS];
    uint32_t states[CODERS];
    for (size_t i = 0; i < ARRAYS; i++) {
        memset(&records[i], 0, sizeof records[i]);
        if (!(p = read_record(i, p, end, &records[i]))) return SQZ_DAMAGED;
    }
    memset(weights, 0, WEIGHTS * sizeof *weights); /* of outputs that only fill a panel */
    if ((size_t)(end - p) != 4 * CODERS + 2 * words) return SQZ_DAMAGED;
    for (size_t i = 0; i < CODERS; i++, p += 4)
        if ((states[i] = u32(p)) < SLOTS) return SQZ_DAMAGED;
    for (size_t i = 0; i < ARRAYS; i++) {
        const record *array = &records[i];
        const size_t window = window_of(i);
        if (array->kind == 2) make_decoder(array, table);
        for (size_t o = 0, n = 0; o < arrays[i].outputs; o++) {
            const float step =
                array->kind == 2 ? array->unit * array->data[array->factors > 1 ? o : 0] : 0;
            for (size_t k = 0; k < window; k++, n++) {
                float value;
                if (array->kind == 2) {
                    uint32_t *state = &states[n % CODERS];
                    const uint32_t slot = *state % SLOTS;
                    *state = table->frequency[slot] * (*state / SLOTS) + table->offset[slot];
                    if (*state < 65536) {
                        if (p == end) return SQZ_DAMAGED;
                        *state = *state << 16 | u16(p);
                        p += 2;
                    }
                    value = table->index[slot] * step;
                } else {
                    value = array->kind ? f16(array->data + 2 * n) : f32(array->data + 4 * n);
                }
                if (!isfinite(value)) return SQZ_DAMAGED;
                weights[place_of(i, o, k)] = value;
            }
        }
    }
    for (size_t i = 0; i < CODERS; i++)
        if (states[i] != 65536) return SQZ_DAMAGED;
    return p == end ? SQZ_OK : SQZ_DAMAGED;
}

static int read_file(const unsigned char *file, size_t bytes, float *weights, decoder *table)
{
    size_t described;
    if (bytes < HEADER + 4 || memcmp(file, "\x89SQZ\r\n\x1a\n", 8)) return SQZ_NO_SQZ;
    if (u16(file + 8) != 1) return SQZ_OTHER_VERSION;
    if (u32(file + 12) != bytes) return SQZ_CUT;
    if (u32(file + bytes - 4) != crc32(file, bytes - 4)) return SQZ_CHECKSUM;
    described = u32(file + 16);
    if (described > bytes - HEADER - 4) return SQZ_DAMAGED;
    if (!describes_this((const char *)file + HEADER, described)) return SQZ_OTHER_NETWORK;
    if (u16(file + 10) != ARRAYS) return SQZ_DAMAGED;
    return read_arrays(file + HEADER + described, file + bytes - 4, u32(file + 20), weights, table);
}
