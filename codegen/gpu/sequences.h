/* Rows of several sequences in one call: sequence after sequence, those of sequence i end before row ends[i].
 *
 * A tile is some rows of one sequence. A call of one sequence has n_rows rows and its ends are not read.
 */
#ifndef MOSSC_CODEGEN_GPU_SEQUENCES_H
#define MOSSC_CODEGEN_GPU_SEQUENCES_H

/* begin, end: the sequence's rows; first: row of the tile, counted from begin. No tile: first >= end - begin. */
typedef struct { int sequence, begin, end, first; } SequenceTile;

DEVICE int sequence_end(const int32_t *ends, int n_sequences, int n_rows, int sequence)
{
    return n_sequences == 1 ? n_rows : ends[sequence];
}

/* Tile `tile` of all, which the grid has ceil(n_rows / tile_rows) + n_sequences - 1 of. */
DEVICE SequenceTile sequence_tile(const int32_t *ends, int n_sequences, int n_rows, int tile, int tile_rows)
{
    SequenceTile found = { 0, 0, sequence_end(ends, n_sequences, n_rows, 0), 0 };
    while (found.sequence < n_sequences - 1) {
        const int n_tiles = (found.end - found.begin + tile_rows - 1) / tile_rows;
        if (tile < n_tiles)
            break;
        tile -= n_tiles;
        found.sequence++;
        found.begin = found.end;
        found.end = ends[found.sequence];
    }
    found.first = tile * tile_rows;
    return found;
}

/* The sequence of a row, as a tile of that row. */
DEVICE SequenceTile sequence_of_row(const int32_t *ends, int n_sequences, int n_rows, int row)
{
    SequenceTile found = { 0, 0, sequence_end(ends, n_sequences, n_rows, 0), 0 };
    while (found.sequence < n_sequences - 1 && row >= found.end) {
        found.sequence++;
        found.begin = found.end;
        found.end = ends[found.sequence];
    }
    found.first = row - found.begin;
    return found;
}

#endif
