/* $title
 *
 * A classifier in C99 that needs libc and libm alone. It has no global state and allocates nothing:
 * the caller gives it one block of memory, its arena, of $arena.
 *
 *     void *arena = malloc(sqz_arena_bytes());
 *     sqz_net *net;
 *     int error = sqz_load(&net, file, bytes, arena, sqz_arena_bytes());
 *     if (error) puts(sqz_message(error));
 *     sqz_result top[5];
 *     error = sqz_classify(net, rgb, width, height, 3 * width, top, 5);
 *     if (!error && !sqz_is_none(net)) puts(sqz_name(net, top[0].class_id));
 */
#ifndef SQUEEZENET_H
#define SQUEEZENET_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SQZ_CLASSES $classes
#define SQZ_SIDE $side /* the network sees SQZ_SIDE x SQZ_SIDE pixels */
#define SQZ_INPUTS (3 * SQZ_SIDE * SQZ_SIDE) /* floats, $layout */
#define SQZ_CALIBRATED $calibrated /* whether it knows images of none of its classes */
#define SQZ_TEMPERATURE $temperature /* logits are divided by it before the softmax */
#define SQZ_THRESHOLD $threshold /* an image of lower familiarity is none of the classes */

/* What functions return. */
enum {
    SQZ_OK,
    SQZ_NO_SQZ,        /* no .sqz file */
    SQZ_OTHER_VERSION, /* another version of the format */
    SQZ_CUT,           /* another length than it should have */
    SQZ_CHECKSUM,      /* damaged */
    SQZ_OTHER_NETWORK, /* weights of another network than this code is for */
    SQZ_DAMAGED,       /* its checksum is right, its contents are not */
    SQZ_SMALL_ARENA,   /* the arena has fewer than sqz_arena_bytes() */
    SQZ_BAD_IMAGE,     /* an image of no pixels, or rows that overlap */
    SQZ_NOT_FINITE     /* the network gives NaN or infinite logits */
};

/* The network with its weights; it lies in the arena. One thread at a time may use it. */
typedef struct sqz_net sqz_net;

typedef struct {
    int class_id;      /* 0 to SQZ_CLASSES - 1 */
    float probability; /* 0 to 1 */
} sqz_result;

/* How large the arena has to be. */
size_t sqz_arena_bytes(void);

/* Reads a weights file, which may be freed afterwards. `net` is in `arena`. */
int sqz_load(sqz_net **net, const void *file, size_t bytes, void *arena, size_t arena_bytes);

/* What an error is, in English. */
const char *sqz_message(int error);

/* The most probable classes of an image, largest first.
 *
 * rgb: rows of pixels of 3 bytes, red, green, blue. stride: bytes from one row to the next.
 * top: room for k results; k is at most SQZ_CLASSES. */
int sqz_classify(sqz_net *net, const unsigned char *rgb, int width, int height, size_t stride,
                 sqz_result *top, int k);

/* The name of a class in UTF-8; NULL where the names are not known. */
const char *sqz_name(const sqz_net *net, int class_id);

/* The steps of sqz_classify: `input` has SQZ_INPUTS values, `logits` SQZ_CLASSES. */
int sqz_preprocess(sqz_net *net, const unsigned char *rgb, int width, int height, size_t stride,
                   float *input);
int sqz_forward(sqz_net *net, const float *input, float *logits);

/* The next three are about the image that sqz_classify or sqz_forward was last given. */

/* Whether it is none of the classes; 0 without a calibration. */
int sqz_is_none(const sqz_net *net);

/* How much it is like the images of its class that the network was trained on, in standard
 * deviations above their mean; 0 without a calibration. */
double sqz_familiarity(const sqz_net *net);

/* Where it shows evidence for a class: SQZ_SIDE x SQZ_SIDE values, row by row, one for each pixel
 * that the network saw. Positive values speak for the class. */
int sqz_map(sqz_net *net, int class_id, float *map);

#ifdef __cplusplus
}
#endif
#endif
