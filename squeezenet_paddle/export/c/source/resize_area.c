
/* cv2.INTER_AREA where it makes smaller: the mean of what lies under a pixel. */
typedef struct {
    int first, end;            /* source pixels */
    float head, middle, tail;  /* weights of the first, of those between, of the last */
} cell;

typedef struct {
    cell columns[SQZ_SIDE];
    float sums[ROW], row[ROW];
} area_resizer;

static cell area_weights(int to, int to_size, int size)
{
    const double scale = 1. / ((double)to_size / size);
    const double start = to * scale, end = start + scale, width = fmin(scale, size - start);
    int inner = (int)ceil(start), last = (int)floor(end);
    cell c;
    last = last < size - 1 ? last : size - 1;
    inner = inner < last ? inner : last;
    c.first = inner;
    c.end = last;
    c.head = c.middle = (float)(1.0 / width);
    c.tail = c.middle;
    if (inner - start > 1e-3) {
        c.first = inner - 1;
        c.head = (float)((inner - start) / width);
    }
    if (end - last > 1e-3) {
        c.end = last + 1;
        c.tail = (float)(fmin(fmin(end - last, 1.), width) / width);
        if (c.end - c.first == 1) c.head = c.tail;
    }
    return c;
}

static float weight_in(const cell *c, int i)
{
    return i == c->first ? c->head : i == c->end - 1 ? c->tail : c->middle;
}

static void resize_area(const view *v, void *scratch, const target *to)
{
    area_resizer *r = scratch;
    unsigned char bytes[ROW];
    for (int x = 0; x < SQZ_SIDE; x++)
        r->columns[x] = area_weights(v->left + x, v->to_width, v->width);
    for (int y = 0; y < SQZ_SIDE; y++) {
        const cell rows = area_weights(v->top + y, v->to_height, v->height);
        for (int i = rows.first; i < rows.end; i++) {
            const unsigned char *row = row_of(v, i);
            const float beta = weight_in(&rows, i);
            for (int x = 0; x < SQZ_SIDE; x++) {
                const cell *c = &r->columns[x];
                float sum[3] = {0};
                for (int j = c->first; j < c->end; j++)
                    for (int k = 0; k < 3; k++) sum[k] += row[3 * (size_t)j + k] * weight_in(c, j);
                memcpy(r->row + 3 * x, sum, sizeof sum);
            }
            for (int x = 0; x < ROW; x++)
                r->sums[x] = i == rows.first ? beta * r->row[x] : r->sums[x] + beta * r->row[x];
        }
        for (int x = 0; x < ROW; x++) bytes[x] = to_byte(r->sums[x]);
        put_row(to, y, bytes);
    }
}
