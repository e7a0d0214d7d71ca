
/* The same for images of fewer than 4 pixels in a direction, which Intel's library does not take:
 * OpenCV's own, with weights of 11 bits. */
typedef struct {
    int index[SQZ_SIDE][4], weight[SQZ_SIDE][4];
    int rows[4][ROW];
} small_resizer;

static int small_weights(int to, int to_size, int size, int *weight)
{
    const float a = -0.75f, place = (float)((to + 0.5) * (1. / ((double)to_size / size)) - 0.5);
    const int index = (int)floorf(place);
    const float x = place - (float)index, far = x + 1, rest = 1 - x;
    const float first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    const float second = ((a + 2) * x - (a + 3)) * x * x + 1;
    const float third = ((a + 2) * rest - (a + 3)) * rest * rest + 1;
    weight[0] = to_even(first * 2048);
    weight[1] = to_even(second * 2048);
    weight[2] = to_even(third * 2048);
    weight[3] = to_even((1.f - first - second - third) * 2048);
    return index;
}

static void resize_cubic_small(const view *v, void *scratch, const target *to)
{
    small_resizer *r = scratch;
    unsigned char bytes[ROW];
    /* Its vectors of 8 values add in float32, whose products are rounded first; the values behind
     * the last whole vector of a row are added as integers. */
    const int vectors = 3 * v->to_width / 8 * 8;
    for (int x = 0; x < SQZ_SIDE; x++) {
        const int index = small_weights(v->left + x, v->to_width, v->width, r->weight[x]);
        for (int i = 0; i < 4; i++) r->index[x][i] = 3 * clipped(index - 1 + i, v->width);
    }
    for (int y = 0; y < SQZ_SIDE; y++) {
        int w[4];
        const int index = small_weights(v->top + y, v->to_height, v->height, w);
        for (int i = 0; i < 4; i++) {
            const unsigned char *row = row_of(v, index - 1 + i);
            for (int x = 0; x < ROW; x++) {
                const int *at = r->index[x / 3], *weight = r->weight[x / 3];
                r->rows[i][x] = 0;
                for (int k = 0; k < 4; k++) r->rows[i][x] += row[at[k] + x % 3] * weight[k];
            }
        }
        for (int x = 0; x < ROW; x++) {
            const int p[4] = {r->rows[0][x] * w[0], r->rows[1][x] * w[1], r->rows[2][x] * w[2],
                              r->rows[3][x] * w[3]};
            float sum = (float)p[3];
            for (int i = 2; i >= 0; i--) sum += (float)p[i];
            if (3 * v->left + x >= vectors) {
                const int whole = p[0] + p[1] + p[2] + p[3] + (1 << 21);
                sum = (float)(whole < 0 ? 0 : whole >> 22);
            } else {
                sum /= 1 << 22;
            }
            bytes[x] = to_byte(sum);
        }
        put_row(to, y, bytes);
    }
}
