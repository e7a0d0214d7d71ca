
/* The gradient of a logit weights the maps of all fires, whose means the head reads. */
int sqz_map(sqz_net *net, int class_id, float *map)
{
    const float *w = net->weights;
    float gradient[POOLS] = {0};
    if (class_id < 0 || class_id >= SQZ_CLASSES) return SQZ_BAD_IMAGE;
    for (size_t j = 0; j < UNITS; j++) {
        const float value = net->hidden[j], slope = value > 0 ? 1 : ELU ? value + 1 : 0;
        const float factor = slope * weight_of(w + FC_WEIGHT, UNITS, j, (size_t)class_id);
        for (size_t i = 0; i < POOLS && factor != 0; i++)
            gradient[i] += factor * weight_of(w + FC10_WEIGHT, POOLS, i, j);
    }
    for (size_t i = 0; i < POOLS; i++) gradient[i] *= w[BN_POOLS_WEIGHT + i];
    memset(map, 0, SQZ_SIDE * SQZ_SIDE * sizeof *map);
    forward(net, gradient, map);
    return SQZ_OK;
}
