
/* cv2.INTER_CUBIC as Intel's library computes it, which OpenCV calls on x86: in float32, with
 * products that are added before they are rounded. */
typedef struct {
    int index[SQZ_SIDE][4];
    float weight[SQZ_SIDE][4];
    int row_of[4]; /* the image's row that each of `rows` was made of */
    float rows[4][ROW];
} cubic_resizer;

/* a * b + c, rounded once: the product of two floats is exact in double. */
static float fused(float a, float b, float c) { return (float)((double)a * b + c); }

/* The second of four positions, and their weights, for place `to` of `to_size`. */
static int cubic_weights(int to, int to_size, int size, float *weight)
{
    const double a = -0.75, place = (to + 0.5) * ((double)size / to_size) - 0.5;
    const int index = (int)floor(place);
    const double x = place - index, first = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    const double second = ((a + 2) * x - (a + 3)) * x * x + 1;
    const double third = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    weight[0] = (float)first;
    weight[1] = (float)second;
    weight[2] = (float)third;
    weight[3] = (float)(1 - first - second - third);
    return index;
}

static void make_row(const view *v, int from, cubic_resizer *r, float *row)
{
    const unsigned char *pixels = row_of(v, from);
    for (int x = 0; x < SQZ_SIDE; x++) {
        const int *at = r->index[x];
        const float *w = r->weight[x];
        for (int c = 0; c < 3; c++) {
            float sum = pixels[at[0] + c] * w[0];
            for (int i = 1; i < 4; i++) sum = fused(pixels[at[i] + c], w[i], sum);
            row[3 * x + c] = sum;
        }
    }
}

static void resize_cubic(const view *v, void *scratch, const target *to)
{
    cubic_resizer *r = scratch;
    unsigned char bytes[ROW];
    for (int x = 0; x < SQZ_SIDE; x++) {
        const int index = cubic_weights(v->left + x, v->to_width, v->width, r->weight[x]);
        for (int i = 0; i < 4; i++) r->index[x][i] = 3 * clipped(index - 1 + i, v->width);
    }
    for (int i = 0; i < 4; i++) r->row_of[i] = -1;
    for (int y = 0; y < SQZ_SIDE; y++) {
        const float *rows[4];
        float w[4];
        const int index = cubic_weights(v->top + y, v->to_height, v->height, w);
        for (int i = 0; i < 4; i++) {
            const int from = clipped(index - 1 + i, v->height), slot = from % 4;
            rows[i] = r->rows[slot];
            if (r->row_of[slot] == from) continue;
            r->row_of[slot] = from;
            make_row(v, from, r, r->rows[slot]);
        }
        for (int x = 0; x < ROW; x++)
            bytes[x] = to_byte(fused(rows[0][x], w[0], rows[1][x] * w[1])
                               + fused(rows[2][x], w[2], rows[3][x] * w[3]));
        put_row(to, y, bytes);
    }
}
