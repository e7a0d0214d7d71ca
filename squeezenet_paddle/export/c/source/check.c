/* Compares this build with the pictures in golden/: their inputs have to be the same to the last
 * bit, their logits to 1e-4 of the largest one. */

#include "squeezenet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads a file of golden/ to `data`, of which it may be the start; returns how many bytes. */
static size_t read_file(const char *name, void *data, size_t room)
{
    FILE *stream = fopen(name, "rb");
    size_t bytes;
    if (!stream) {
        fprintf(stderr, "%s: cannot be read\n", name);
        exit(2);
    }
    bytes = fread(data, 1, room, stream);
    fclose(stream);
    return bytes;
}

int main(int argc, char **argv)
{
    const size_t room = 64 << 20;
    unsigned char *data = malloc(room);
    float *expected = malloc(SQZ_INPUTS * sizeof(float)), *input = malloc(SQZ_INPUTS * sizeof(float));
    float logits[SQZ_CLASSES], golden[SQZ_CLASSES];
    void *arena = malloc(sqz_arena_bytes());
    sqz_net *net;
    int error, failed = 0;
    if (!data || !expected || !input || !arena) return 2;
    error = sqz_load(&net, data, read_file(argc > 1 ? argv[1] : "model.sqz", data, room), arena,
                     sqz_arena_bytes());
    if (error) {
        fprintf(stderr, "%s\n", sqz_message(error));
        return 2;
    }
    for (int i = 0; i < GOLDEN; i++) {
        char name[40];
        int width, height, start;
        size_t other = 0;
        double largest = 0, difference = 0;
        sprintf(name, "golden/%d.ppm", i);
        data[read_file(name, data, room - 1)] = 0;
        if (sscanf((char *)data, "P6 %d %d 255%n", &width, &height, &start) != 2) return 2;
        error = sqz_preprocess(net, data + start + 1, width, height, 3 * (size_t)width, input);
        if (!error) error = sqz_forward(net, input, logits);
        if (error) {
            fprintf(stderr, "%s: %s\n", name, sqz_message(error));
            return 2;
        }
        sprintf(name, "golden/%d.input", i);
        read_file(name, expected, SQZ_INPUTS * sizeof(float));
        sprintf(name, "golden/%d.logits", i);
        read_file(name, golden, sizeof golden);
        for (int j = 0; j < SQZ_INPUTS; j++) other += input[j] != expected[j];
        for (int j = 0; j < SQZ_CLASSES; j++) {
            largest = fmax(largest, fabs(golden[j]));
            difference = fmax(difference, fabs(logits[j] - golden[j]));
        }
        printf("golden/%d.ppm  %d x %d: %lu of %d inputs differ; logits by %.1e of the largest\n", i,
               width, height, (unsigned long)other, SQZ_INPUTS, difference / largest);
        failed |= other > 0 || !(difference <= 1e-4 * largest);
    }
    free(data);
    free(expected);
    free(input);
    free(arena);
    puts(failed ? "FAILED" : "ok");
    return failed;
}
