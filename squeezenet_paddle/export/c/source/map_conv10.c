
/* The logit is the mean of this map. */
int sqz_map(sqz_net *net, int class_id, float *map)
{
    const int height = CONV10_HEIGHT + 2 * CONV10_PAD, width = CONV10_WIDTH + 2 * CONV10_PAD;
    const float *bias = net->weights + CONV10_BIAS;
    float *small = net->maps + MAP;
    if (class_id < 0 || class_id >= SQZ_CLASSES) return SQZ_BAD_IMAGE;
    for (int i = 0; i < height * width; i++) {
        const int y = i / width - CONV10_PAD, x = i % width - CONV10_PAD;
        const float *inside = net->maps + CONV10_MAPS + (y * (CONV10_WIDTH + 1) + x) * CONV10;
        const int padded = y < 0 || y >= CONV10_HEIGHT || x < 0 || x >= CONV10_WIDTH;
#if CONV10 == SQZ_CLASSES
        small[i] = padded ? activation(bias[class_id]) : inside[class_id];
#else
        double sum = 0;
        for (size_t k = 0; k < CONV10; k++)
            sum += weight_of(net->weights + FC_WEIGHT, CONV10, k, (size_t)class_id)
                   * (padded ? activation(bias[k]) : inside[k]);
        small[i] = (float)sum;
#endif
    }
    memset(map, 0, SQZ_SIDE * SQZ_SIDE * sizeof *map);
    enlarge(small, height, width, CONV10_OFFSET, CONV10_STEP, map);
    return SQZ_OK;
}
