
/* A fully connected layer. `y` has room for PADDED(outputs). */
static void linear(const float *x, size_t inputs, const float *weights, const float *bias,
                   int outputs, float *y, int mode)
{
    for (int panel = 0; panel < PANELS(outputs); panel++, y += PANEL) {
        memcpy(y, bias + panel * PANEL, PANEL * sizeof *y);
        for (size_t i = 0; i < inputs; i++, weights += PANEL)
            for (int j = 0; j < PANEL; j++) y[j] += x[i] * weights[j];
        for (int j = 0; mode == ACTIVATED && j < PANEL; j++) y[j] = activation(y[j]);
    }
}

/* The weight from input i to output o of a layer of this many inputs. */
static float weight_of(const float *weights, size_t inputs, size_t i, size_t o)
{
    return weights[(o / PANEL * inputs + i) * PANEL + o % PANEL];
}
