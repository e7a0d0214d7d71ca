/* Classifies images: PPM and PGM files (P5, P6), or raw RGB with its size, from files or standard
 * input.
 *
 *     squeezenet [-k COUNT] [-w model.sqz] [IMAGE.ppm ...]
 *     squeezenet -r WIDTHxHEIGHT < pixels.rgb
 *
 * Exit code 0: all were classified; 1: one could not be read, or the output not be written; 2: the
 * arguments or the weights are not usable. */

#include "squeezenet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef SQZ_EMBEDDED
extern const unsigned char model_sqz[];
extern const size_t model_sqz_bytes;
#endif

/* All bytes of a stream; NULL where memory or the stream ends early. */
static unsigned char *read_all(FILE *stream, size_t *bytes)
{
    size_t room = 1 << 20, count;
    unsigned char *data = malloc(room);
    *bytes = 0;
    while (data && (count = fread(data + *bytes, 1, room - *bytes, stream)) > 0) {
        *bytes += count;
        if (*bytes == room) {
            unsigned char *larger = room < (size_t)-1 / 2 ? realloc(data, room *= 2) : NULL;
            if (!larger) free(data);
            data = larger;
        }
    }
    if (data && ferror(stream)) {
        free(data);
        return NULL;
    }
    return data;
}

/* The next number of a PNM head, behind spaces and comments; -1 where there is none. */
static long number(const unsigned char *data, size_t bytes, size_t *at)
{
    long value = -1;
    while (*at < bytes && ((data[*at] && strchr(" \t\r\n", data[*at])) || data[*at] == '#')) {
        if (data[*at] == '#')
            while (*at < bytes && data[*at] != '\n') ++*at;
        else
            ++*at;
    }
    for (; *at < bytes && data[*at] >= '0' && data[*at] <= '9'; ++*at)
        value = value > 99999999 ? value : 10 * (value < 0 ? 0 : value) + data[*at] - '0';
    return value;
}

/* Decodes a PNM file to RGB in place of `data`; 0 where it is none. */
static int decode(unsigned char **data, size_t bytes, int *width, int *height)
{
    size_t at = 2, pixels;
    long wide, high, largest;
    const int channels = bytes > 2 && (*data)[0] == 'P'
                             ? (*data)[1] == '6' ? 3 : (*data)[1] == '5' ? 1 : 0 : 0;
    if (!channels) return 0;
    wide = number(*data, bytes, &at);
    high = number(*data, bytes, &at);
    largest = number(*data, bytes, &at);
    if (wide < 1 || high < 1 || wide > 1 << 24 || high > 1 << 24 || largest != 255) return 0;
    if (at++ >= bytes) return 0; /* one space */
    if ((size_t)high > (size_t)-1 / 3 / (size_t)wide) return 0;
    pixels = (size_t)wide * (size_t)high;
    if ((bytes - at) / channels < pixels) return 0;
    *width = (int)wide;
    *height = (int)high;
    if (channels == 3) {
        memmove(*data, *data + at, 3 * pixels);
    } else {
        unsigned char *grey = *data, *rgb = malloc(3 * pixels);
        if (!rgb) return 0;
        for (size_t i = 0; i < 3 * pixels; i++) rgb[i] = grey[at + i / 3];
        free(grey);
        *data = rgb;
    }
    return 1;
}

/* Classifies what `stream` holds and prints it; 0 where it is no image. */
static int classify(sqz_net *net, FILE *stream, const char *name, int width, int height, int count)
{
    sqz_result *top = malloc((size_t)count * sizeof *top);
    size_t bytes;
    unsigned char *data = read_all(stream, &bytes);
    int ok = data && top, error = SQZ_OK;
    if (!ok) {
        fprintf(stderr, "%s: cannot read this image\n", name);
    } else if (width) {
        ok = bytes % 3 == 0 && bytes / 3 % (size_t)width == 0
             && bytes / 3 / (size_t)width == (size_t)height;
        if (!ok)
            fprintf(stderr, "%s: %d x %d x 3 bytes were expected, %lu were found\n", name, width,
                    height, (unsigned long)bytes);
    } else {
        ok = decode(&data, bytes, &width, &height);
        if (!ok) fprintf(stderr, "%s: no PPM or PGM file of 8 bits, or not all of one\n", name);
    }
    if (ok) error = sqz_classify(net, data, width, height, 3 * (size_t)width, top, count);
    if (error) fprintf(stderr, "%s: %s\n", name, sqz_message(error));
    if (ok && !error) {
        printf("%s%s\n", name, sqz_is_none(net) ? ": none of these" : "");
        for (int i = 0; i < count; i++) {
            const char *class_name = sqz_name(net, top[i].class_id);
            printf("  %5.1f%%  %4d  %s\n", 100 * top[i].probability, top[i].class_id,
                   class_name ? class_name : "");
        }
    }
    free(data);
    free(top);
    return ok && !error;
}

int main(int argc, char **argv)
{
    int count = SQZ_CLASSES < 5 ? SQZ_CLASSES : 5, width = 0, height = 0, at = 1, failed = 0, error;
    const char *weights = NULL;
    const unsigned char *file = NULL;
    unsigned char *data = NULL;
    size_t bytes = 0;
    void *arena;
    sqz_net *net;
    for (; at + 1 < argc && argv[at][0] == '-' && argv[at][1] && !argv[at][2]; at += 2) {
        char rest;
        int good = 1;
        if (argv[at][1] == 'k')
            good = sscanf(argv[at + 1], "%9d%c", &count, &rest) == 1 && count >= 1;
        else if (argv[at][1] == 'w')
            weights = argv[at + 1];
        else if (argv[at][1] == 'r')
            good = sscanf(argv[at + 1], "%9dx%9d%c", &width, &height, &rest) == 2 && width >= 1
                   && height >= 1;
        else
            break;
        if (!good) break;
    }
    if (at < argc && argv[at][0] == '-' && argv[at][1]) {
        fprintf(stderr, "usage: %s [-k COUNT] [-w FILE] [-r WIDTHxHEIGHT] [IMAGE ...]\n", argv[0]);
        return 2;
    }
    if (count > SQZ_CLASSES) count = SQZ_CLASSES;
#ifdef SQZ_EMBEDDED
    if (!weights) {
        file = model_sqz;
        bytes = model_sqz_bytes;
    }
#endif
    if (!weights) weights = "model.sqz";
    if (!file) {
        FILE *stream = fopen(weights, "rb");
        if (stream) {
            file = data = read_all(stream, &bytes);
            fclose(stream);
        }
        if (!stream || !data) {
            fprintf(stderr, "%s: cannot read this weights file\n", weights);
            return 2;
        }
    }
    arena = malloc(sqz_arena_bytes());
    if (!arena) {
        fprintf(stderr, "%s: out of memory\n", argv[0]);
        return 2;
    }
    error = sqz_load(&net, file, bytes, arena, sqz_arena_bytes());
    free(data);
    if (error) {
        fprintf(stderr, "%s: %s\n", weights, sqz_message(error));
        free(arena);
        return 2;
    }
    if (at == argc) failed = !classify(net, stdin, "-", width, height, count);
    for (; at < argc; at++) {
        FILE *stream = strcmp(argv[at], "-") ? fopen(argv[at], "rb") : stdin;
        if (!stream) fprintf(stderr, "%s: cannot read this image\n", argv[at]);
        if (!stream || !classify(net, stream, argv[at], width, height, count)) failed = 1;
        if (stream && stream != stdin) fclose(stream);
    }
    free(arena);
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "%s: the output cannot be written\n", argv[0]);
        return 1;
    }
    return failed;
}
