
static int pixels_to_input(void *scratch, const unsigned char *rgb, int width, int height,
                           size_t stride, float *input, int interleaved)
{
    view v = {rgb, width, height, stride, RESIZE_SIZE, RESIZE_SIZE, 0, 0};
    target to = {{0}, input, interleaved};
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE) return SQZ_BAD_IMAGE;
    if (stride / 3 < (size_t)width) return SQZ_BAD_IMAGE;
#if SHORT_SIDE
    if (v.width > v.height) {
        const int longest = v.height > MAX_SIDE / LONGEST ? MAX_SIDE : v.height * LONGEST;
        if (v.width > longest) v.rgb += 3 * (size_t)((v.width - longest) / 2), v.width = longest;
        v.to_width = (int)((double)RESIZE_SIZE * v.width / v.height);
    } else if (v.height > v.width) {
        const int longest = v.width > MAX_SIDE / LONGEST ? MAX_SIDE : v.width * LONGEST;
        if (v.height > longest) v.rgb += stride * ((v.height - longest) / 2), v.height = longest;
        v.to_height = (int)((double)RESIZE_SIZE * v.height / v.width);
    }
#endif
    v.left = (v.to_width - SQZ_SIDE) / 2;
    v.top = (v.to_height - SQZ_SIDE) / 2;
    for (int i = 0; i < 256; i++) to.scaled[i] = (float)i * SCALE;
    if (v.width == v.to_width && v.height == v.to_height) {
        for (int y = 0; y < SQZ_SIDE; y++) put_row(&to, y, row_of(&v, v.top + y) + 3 * v.left);
        return SQZ_OK;
    }
#if CUBIC
    if (v.width < 4 || v.height < 4)
        resize_cubic_small(&v, scratch, &to);
    else
        resize_cubic(&v, scratch, &to);
#else
    const double across = 1. / ((double)v.to_width / v.width);
    const double down = 1. / ((double)v.to_height / v.height);
    const int by_x = (int)(across + 0.5), by_y = (int)(down + 0.5);
    const int whole = fabs(across - by_x) < DBL_EPSILON && fabs(down - by_y) < DBL_EPSILON;
    if (whole && (AREA || (by_x == 2 && by_y == 2)) && across >= 1 && down >= 1)
        resize_by_whole(&v, &to, by_x, by_y);
#if AREA
    else if (across >= 1 && down >= 1)
        resize_area(&v, scratch, &to);
#endif
    else
        resize_linear(&v, scratch, &to, AREA);
#endif
    return SQZ_OK;
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#elif defined(__clang__)
#pragma STDC FP_CONTRACT ON
#endif
