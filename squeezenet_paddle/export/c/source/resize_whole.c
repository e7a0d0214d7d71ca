
/* cv2.INTER_AREA where a whole number of pixels lies under each, and INTER_LINEAR where these are 4. */
static void resize_by_whole(const view *v, const target *to, int by_x, int by_y)
{
    unsigned char bytes[ROW];
    const int area = by_x * by_y;
    const float share = 1.f / (float)area;
    for (int y = 0; y < SQZ_SIDE; y++) {
        for (int x = 0; x < SQZ_SIDE; x++) {
            int sum[3] = {0};
            for (int i = 0; i < by_y; i++) {
                const unsigned char *row = row_of(v, (v->top + y) * by_y + i)
                                           + (size_t)(v->left + x) * by_x * 3;
                for (int j = 0; j < by_x; j++, row += 3)
                    for (int c = 0; c < 3; c++) sum[c] += row[c];
            }
            for (int c = 0; c < 3; c++)
                bytes[3 * x + c] = (unsigned char)(by_x == 2 && by_y == 2 ? (sum[c] + 2) >> 2
                                                                          : to_byte((float)sum[c] * share));
        }
        put_row(to, y, bytes);
    }
}
