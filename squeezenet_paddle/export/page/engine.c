/* What the page calls of the C code: classifies an image, and keeps the answer to be looked at. */

#include "squeezenet.c"

#define EXPORTED(name) __attribute__((export_name(#name))) page_##name
#define SHOWN (SQZ_CLASSES < 5 ? SQZ_CLASSES : 5)

static sqz_net *page_net;
static sqz_result page_top[SHOWN];
static float page_map[SQZ_SIDE * SQZ_SIDE];

size_t EXPORTED(arena_bytes)(void) { return sqz_arena_bytes(); }

int EXPORTED(load)(const void *file, size_t bytes, void *arena)
{
    return sqz_load(&page_net, file, bytes, arena, sqz_arena_bytes());
}

const char *EXPORTED(message)(int error) { return sqz_message(error); }

int EXPORTED(classify)(const unsigned char *rgb, int width, int height)
{
    return sqz_classify(page_net, rgb, width, height, 3 * (size_t)width, page_top, SHOWN);
}

int EXPORTED(count)(void) { return SHOWN; }
int EXPORTED(class_id)(int rank) { return page_top[rank].class_id; }
float EXPORTED(probability)(int rank) { return page_top[rank].probability; }
int EXPORTED(is_none)(void) { return sqz_is_none(page_net); }

int EXPORTED(classes)(void) { return SQZ_CLASSES; }
const float *EXPORTED(logits)(void) { return page_net->logits; }

int EXPORTED(side)(void) { return SQZ_SIDE; }
const float *EXPORTED(map_of)(int class_id)
{
    sqz_map(page_net, class_id, page_map);
    return page_map;
}
