
/* A batch normalisation: x * scale + shift of each channel. */
static void normalise(float *x, size_t positions, size_t channels, const float *scale,
                      const float *shift)
{
    for (size_t i = 0; i < positions; i++, x += channels)
        for (size_t k = 0; k < channels; k++) x[k] = x[k] * scale[k] + shift[k];
}

/* Makes scale and shift of what the weights file has. */
static void prepare(float *weight, float *bias, const float *mean, const float *variance,
                    size_t channels)
{
    for (size_t i = 0; i < channels; i++) {
        weight[i] /= sqrtf(variance[i] + 1e-5f);
        bias[i] -= weight[i] * mean[i];
    }
}
