
/* ---- What squeezenet.h declares. */

#define ALIGNMENT 64
#define ALIGNED(bytes) (((bytes) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

size_t sqz_arena_bytes(void)
{
    return ALIGNMENT + ALIGNED(sizeof(sqz_net)) + ALIGNED(WEIGHTS * sizeof(float))
           + ALIGNED(MAPS * sizeof(float));
}

int sqz_load(sqz_net **net, const void *file, size_t bytes, void *arena, size_t arena_bytes)
{
    unsigned char *at = arena;
    int error;
    *net = NULL;
    if (arena_bytes < sqz_arena_bytes()) return SQZ_SMALL_ARENA;
    at += (ALIGNMENT - (uintptr_t)at % ALIGNMENT) % ALIGNMENT;
    sqz_net *loaded = (sqz_net *)(void *)at;
    float *w = (float *)(void *)(at + ALIGNED(sizeof(sqz_net)));
    loaded->weights = w;
    loaded->maps = w + ALIGNED(WEIGHTS * sizeof(float)) / sizeof(float);
    error = read_file(file, bytes, w, (decoder *)(void *)(loaded->maps + DECODER));
    if (error) return error;
    memset(loaded->maps, 0, MAPS * sizeof(float));
    memset(loaded->logits, 0, sizeof loaded->logits);
#ifdef NORMALISED
    prepare(NORMALISED);
#endif
    *net = loaded;
    return SQZ_OK;
}

const char *sqz_message(int error)
{
    static const char *const messages[] = {
        "no error",
        "a .sqz file was expected, which starts with other bytes",
        "the file is of another version of the format .sqz",
        "the file has another length than it should have",
        "the file is damaged: its checksum is wrong",
        "the file has the weights of another network or preprocessing",
        "the file is damaged",
        "the arena is smaller than sqz_arena_bytes()",
        "no image, or no class of this network",
        "the network gives NaN or infinite logits",
    };
    const int known = error >= 0 && error < (int)(sizeof messages / sizeof *messages);
    return known ? messages[error] : "unknown error";
}

const char *sqz_name(const sqz_net *net, int class_id)
{
    (void)net;
#if NAMED
    if (class_id >= 0 && class_id < SQZ_CLASSES) return names[class_id];
#endif
    (void)class_id;
    return NULL;
}

/* Runs the network on what is in INPUT. */
static int run(sqz_net *net)
{
    forward(net, NULL, NULL);
    for (int i = 0; i < SQZ_CLASSES; i++)
        if (!isfinite(net->logits[i])) return SQZ_NOT_FINITE;
    return SQZ_OK;
}

int sqz_preprocess(sqz_net *net, const unsigned char *rgb, int width, int height, size_t stride,
                   float *input)
{
    return pixels_to_input(net->maps + SCRATCH, rgb, width, height, stride, input, INTERLEAVED);
}

int sqz_forward(sqz_net *net, const float *input, float *logits)
{
    float *inside = net->maps + INPUT;
    int error;
#if INTERLEAVED
    memcpy(inside, input, SQZ_INPUTS * sizeof *inside);
#else
    for (size_t i = 0; i < SQZ_SIDE * SQZ_SIDE; i++)
        for (size_t c = 0; c < 3; c++) inside[3 * i + c] = input[c * SQZ_SIDE * SQZ_SIDE + i];
#endif
    error = run(net);
    memcpy(logits, net->logits, SQZ_CLASSES * sizeof *logits);
    return error;
}

int sqz_classify(sqz_net *net, const unsigned char *rgb, int width, int height, size_t stride,
                 sqz_result *top, int k)
{
    const float *x = net->logits;
    int best = 0, error;
    double sum = 0;
    if (k < 0 || k > SQZ_CLASSES) return SQZ_BAD_IMAGE;
    error = pixels_to_input(net->maps + SCRATCH, rgb, width, height, stride, net->maps + INPUT, 1);
    if (!error) error = run(net);
    if (error) return error;
    for (int i = 1; i < SQZ_CLASSES; i++)
        if (x[i] > x[best]) best = i;
    for (int i = 0; i < SQZ_CLASSES; i++) sum += exp((double)(x[i] / SQZ_TEMPERATURE) - x[best] / SQZ_TEMPERATURE);
    for (int found = 0; found < k; found++) {
        /* The next smaller logit, or an equal one of a larger id. */
        const int last = found ? top[found - 1].class_id : -1;
        int next = -1;
        for (int i = 0; i < SQZ_CLASSES; i++) {
            if (last >= 0 && (x[i] > x[last] || (x[i] == x[last] && i <= last))) continue;
            if (next < 0 || x[i] > x[next]) next = i;
        }
        top[found].class_id = next;
        top[found].probability =
            (float)(exp((double)(x[next] / SQZ_TEMPERATURE) - x[best] / SQZ_TEMPERATURE) / sum);
    }
    return SQZ_OK;
}
