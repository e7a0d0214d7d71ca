/* ---- The network in its arena. */

struct sqz_net {
    float *weights, *maps;
    float logits[PADDED(SQZ_CLASSES)];
    float fire9[FIRE9_CHANNELS]; /* the means of fire9's maps */
#if POOLS_FIRES
    float pools[POOLS], normalised[POOLS], hidden[PADDED(UNITS)];
#elif CONV10 != SQZ_CLASSES
    float pool10[CONV10];
#endif
};

/* Adds a map of evidence to `heat` at every pixel of the input: linear between the centers of its
 * positions, which are at offset, offset + step and so on, and constant outside of them. */
static void enlarge(const float *map, int height, int width, double offset, double step,
                    float *heat)
{
    for (int y = 0; y < SQZ_SIDE; y++) {
        const double v = fmin(fmax((y - offset) / step, 0), height - 1);
        const int top = (int)v, below = top + 1 < height ? top + 1 : top;
        for (int x = 0; x < SQZ_SIDE; x++) {
            const double h = fmin(fmax((x - offset) / step, 0), width - 1);
            const int left = (int)h, right = left + 1 < width ? left + 1 : left;
            const float *a = map + top * width, *b = map + below * width;
            const double upper = a[left] + (h - left) * (a[right] - a[left]);
            const double lower = b[left] + (h - left) * (b[right] - b[left]);
            *heat++ += (float)(upper + (v - top) * (lower - upper));
        }
    }
}
