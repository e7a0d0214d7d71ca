
/* The end of a fire. With `heat` NULL the means of its channels are kept; else each channel, counted
 * from its mean over the training data, is added with its weight, the gradient of a logit. */
static void end_fire(sqz_net *net, const float *x, int height, int width, size_t channels,
                     size_t start, double offset, double step, const float *gradient, float *heat)
{
    float *map = net->maps + MAP;
    const float *mean = net->weights + BN_POOLS_MEAN + start;
    if (!heat) {
        means(x, height, width, channels, net->pools + start);
        return;
    }
    gradient += start;
    for (int i = 0; i < height; i++, x += channels)
        for (int j = 0; j < width; j++, x += channels) {
            double sum = 0;
            for (size_t k = 0; k < channels; k++) sum += gradient[k] * (x[k] - mean[k]);
            map[i * width + j] = (float)sum;
        }
    enlarge(map, height, width, offset, step, heat);
}
