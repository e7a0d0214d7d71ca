/* Gives sqz_load a weights file with COUNT mutations, each in a block of its exact size, so that
 * AddressSanitizer sees every byte that is read too far. A fifth of them get a right checksum again, so
 * that what is behind it is reached. Prints how many were refused. Then it classifies images of all
 * kinds of sizes, whose pixels lie in a block of their exact size as well.
 *
 *     fuzz_sqz FILE COUNT */

#include "squeezenet.c"

#include <stdio.h>
#include <stdlib.h>

static uint64_t seed = 88172645463325252u;

static size_t below(size_t count)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed >> 11) % count;
}

static void put32(unsigned char *p, uint32_t value)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(value >> 8 * i);
}

static int classify(sqz_net *net, int width, int height, size_t stride)
{
    const size_t bytes = stride * (size_t)(height - 1) + 3 * (size_t)width;
    unsigned char *rgb = malloc(bytes);
    float *map = malloc(SQZ_SIDE * SQZ_SIDE * sizeof *map);
    sqz_result top[SQZ_CLASSES];
    int error;
    if (!rgb || !map) return 1;
    for (size_t i = 0; i < bytes; i++) rgb[i] = (unsigned char)below(256);
    error = sqz_classify(net, rgb, width, height, stride, top, SQZ_CLASSES);
    for (int i = 0; i < SQZ_CLASSES && !error; i++) error = sqz_map(net, top[i].class_id, map);
    sqz_is_none(net);
    free(rgb);
    free(map);
    return error;
}

int main(int argc, char **argv)
{
    static unsigned char file[1 << 20];
    FILE *stream = fopen(argv[1], "rb");
    const size_t bytes = stream ? fread(file, 1, sizeof file, stream) : 0;
    const int count = argc > 2 ? atoi(argv[2]) : 0;
    const size_t size = sqz_arena_bytes(), head = HEADER + u32(file + 16) + 200;
    void *arena = malloc(size);
    sqz_net *net;
    int refused = 0, checksums = 0, loaded = 0;
    if (!arena || bytes < 100 || sqz_load(&net, file, bytes, arena, size)) return 2;
    fclose(stream);
    for (int i = 0; i < count; i++) {
        const int repaired = i % 5 == 0, kind = (int)below(8);
        const size_t length = kind == 0 ? below(bytes) : kind == 1 ? bytes + below(40) : bytes;
        unsigned char *data = malloc(length ? length : 1);
        int error;
        if (!data) return 2;
        memset(data, 0, length);
        memcpy(data, file, length < bytes ? length : bytes);
        for (size_t j = below(4) + (kind > 1); j > 0 && length; j--) {
            /* Most are in the head: what lies behind it is numbers of equal kind. */
            size_t at = below(8) ? below(head) : below(length);
            at = at < length ? at : length - 1;
            data[at] = below(2) ? (unsigned char)below(256) : data[at] ^ (unsigned char)(1u << below(8));
        }
        if (repaired && length >= HEADER + 4) {
            if (below(4)) put32(data + 12, (uint32_t)length);
            put32(data + length - 4, crc32(data, length - 4));
        }
        error = sqz_load(&net, data, length, arena, size);
        if ((error == SQZ_OK) != (net != NULL)) return 3;
        refused += error != SQZ_OK;
        loaded += error == SQZ_OK;
        checksums += error == SQZ_CHECKSUM;
        if (error == SQZ_OK && !repaired && (length != bytes || memcmp(data, file, length))) return 4;
        free(data);
    }
    if (sqz_load(&net, file, bytes, arena, size)) return 5;
    for (int i = 0; i < 12; i++) {
        static const int sizes[] = {1, 2, 3, 4, 40, 48, 96, 144, 500};
        const int width = sizes[below(9)], height = sizes[below(9)];
        if (classify(net, width, height, 3 * (size_t)width + below(5))) return 6;
    }
    if (!sqz_classify(net, file, 0, 1, 3, NULL, 0) || !sqz_classify(net, file, 2, 1, 5, NULL, 0))
        return 7;
    free(arena);
    printf("%d refused, %d by the checksum, %d loaded\n", refused, checksums, loaded);
    return 0;
}
