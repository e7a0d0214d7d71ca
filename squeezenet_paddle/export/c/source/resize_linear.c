
/* cv2.INTER_LINEAR: weights of 11 bits. */
typedef struct {
    int index[SQZ_SIDE], weight[SQZ_SIDE][2];
    int rows[2][ROW];
} linear_resizer;

/* The first of two positions, and their weights, for place `to` of `to_size`. */
static int linear_weights(int to, int to_size, int size, int enlarges_area, int *weight)
{
    const double inverse = (double)to_size / size, scale = 1. / inverse;
    int index;
    float rest;
    if (enlarges_area) {
        index = (int)floor(to * scale);
        const double end = (index + 1) * inverse;
        rest = (float)((to + 1) - end);
        rest = rest <= 0 ? 0 : rest - floorf(rest);
    } else {
        const double middle = (to + 0.5) * scale;
        rest = (float)(middle - 0.5);
        index = (int)floorf(rest);
        rest -= (float)index;
    }
    weight[0] = to_even((1.f - rest) * 2048);
    weight[1] = to_even(rest * 2048);
    return index;
}

static void resize_linear(const view *v, void *scratch, const target *to, int enlarges_area)
{
    linear_resizer *r = scratch;
    unsigned char bytes[ROW];
    for (int x = 0; x < SQZ_SIDE; x++) {
        int index = linear_weights(v->left + x, v->to_width, v->width, enlarges_area, r->weight[x]);
        if (index < 0 || index >= v->width - 1) {
            index = clipped(index, v->width);
            r->weight[x][0] = 2048;
            r->weight[x][1] = 0;
        }
        r->index[x] = index;
    }
    for (int y = 0; y < SQZ_SIDE; y++) {
        int weight[2];
        const int first = linear_weights(v->top + y, v->to_height, v->height, enlarges_area, weight);
        for (int i = 0; i < 2; i++) {
            const unsigned char *row = row_of(v, first + i);
            for (int x = 0; x < SQZ_SIDE; x++) {
                const unsigned char *a = row + (size_t)r->index[x] * 3;
                const unsigned char *b = row + (size_t)clipped(r->index[x] + 1, v->width) * 3;
                for (int c = 0; c < 3; c++)
                    r->rows[i][3 * x + c] = a[c] * r->weight[x][0] + b[c] * r->weight[x][1];
            }
        }
        for (int x = 0; x < ROW; x++)
            bytes[x] = (unsigned char)((((weight[0] * (r->rows[0][x] >> 4)) >> 16)
                                        + ((weight[1] * (r->rows[1][x] >> 4)) >> 16) + 2) >> 2);
        put_row(to, y, bytes);
    }
}
