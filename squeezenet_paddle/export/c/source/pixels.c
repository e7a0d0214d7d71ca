/* ---- Pixels: resize, crop and normalisation as squeezenet_paddle/data/preprocess.py does them
 * with OpenCV, to the last bit. Products are rounded before they are added. */

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define ROW (3 * SQZ_SIDE) /* values in a row of the crop */

/* An image, the size that it is resized to, and where in that the crop starts. */
typedef struct {
    const unsigned char *rgb;
    int width, height;
    size_t stride;
    int to_width, to_height, left, top;
} view;

/* Where the input goes. */
typedef struct {
    float scaled[256]; /* of a pixel, times the scale of the preprocessing */
    float *values;
    int interleaved;
} target;

static const unsigned char *row_of(const view *v, int y)
{
    return v->rgb + (size_t)(y < 0 ? 0 : y < v->height ? y : v->height - 1) * v->stride;
}

static int clipped(int x, int width) { return x < 0 ? 0 : x < width ? x : width - 1; }

static int to_even(float x) /* the nearest whole number, of two the even one */
{
    const float whole = floorf(x), rest = x - whole;
    const int below = (int)whole;
    return below + (rest > 0.5f || (rest == 0.5f && below % 2 != 0));
}

static unsigned char to_byte(float x)
{
    return (unsigned char)(x <= 0 ? 0 : x >= 255 ? 255 : to_even(x));
}

/* Normalises a row of the crop, red, green and blue, into the input. */
static void put_row(const target *to, int y, const unsigned char *row)
{
    static const float mean[] = MEAN, deviation[] = STD;
    (void)mean;
    for (int x = 0; x < SQZ_SIDE; x++)
        for (int c = 0; c < 3; c++) {
            const size_t at = (size_t)y * SQZ_SIDE + x;
            const float pixel = to->scaled[row[3 * x + (RED_FIRST ? c : 2 - c)]];
#if MEAN_IMAGE
            const float value = (pixel - mean_image[3 * at + c]) / deviation[c];
#else
            const float value = (pixel - mean[c]) / deviation[c];
#endif
            to->values[to->interleaved ? 3 * at + c : c * SQZ_SIDE * SQZ_SIDE + at] = value;
        }
}
