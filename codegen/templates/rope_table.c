/* Angles of the rotary embedding for the tokens of a chunk, in double: positions grow large. */
PARAM(head_dim, h)
FPARAM(theta, th)   /* angle of pair i at position p: p * theta^(-2i / head_dim) */

KERNEL(rope_table)(
    float *table,       /* [rows][head_dim]: cosines, then sines */
    int64_t position,   /* of row 0 */
    int row_begin, int row_end)
{
    for (int row = row_begin; row < row_end; row++)
        for (int i = 0; i < head_dim / 2; i++) {
            const double angle = (double)(position + row) * pow(theta, -2.0 * i / head_dim);
            table[(size_t)row * head_dim + i] = (float)cos(angle);
            table[(size_t)row * head_dim + head_dim / 2 + i] = (float)sin(angle);
        }
}
