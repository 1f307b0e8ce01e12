/* out = silu(gate) ⊙ up, split over threads by panels. */
PARAM(stride, s)   /* floats between rows: whole panels */
PARAM(panel, nr)   /* 2 vectors */

KERNEL(swiglu)(
    float *out,          /* [n_rows][stride]; may be gate or up */
    const float *gate,   /* [n_rows][stride] */
    const float *up,     /* [n_rows][stride] */
    int n_rows, int panel_begin, int panel_end)
{
    for (int row = 0; row < n_rows; row++)
        for (int i = panel_begin * panel; i < panel_end * panel; i += LANES) {
            const size_t at = (size_t)row * stride + i;
            vstore(out + at, vsilu(vload(gate + at)) * vload(up + at));
        }
}
