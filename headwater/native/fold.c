/* Events -> the rings of a table (headwater/rows/table.py), for components whose laws take an event at a time.
 *
 * What it does is what `RowTable.fold` does by numpy, to the same words: counts, exact sums, extremes, first and last
 * values. Values of any length stay Python's: it is told where one is the new one.
 */
#include <string.h>

#include "native.h"

enum { COUNT, SUM, GREATEST, LEAST, LAST, FIRST };

typedef struct {
    const int64_t *values; /* int64[n], what an event brings; NULL where the kind needs none */
    const uint8_t *mask;   /* bool[n], which events count; NULL for all */
    int64_t *slots, *events; /* for values of any length: the slots that got another one, and the event that has it; or NULL */
    int64_t kind, word, n; /* `word`: the component's first in a record; `n`: how many slots got another value */
} hw_law;

typedef struct {
    int64_t *tiles, *records; /* as hw_group's, rows.c */
    const int64_t *empty;     /* the words of the state of no events, without the tile's number */
    hw_law *laws;
    int64_t *fresh;           /* the slots that got another tile, if that is wanted, at most n; or NULL */
    int64_t hop, window, slots, width, n_laws, n_fresh; /* `hop`: 0 for the lifetime */
} hw_ring;

typedef struct {
    int64_t n, n_rings, partitions, born_at; /* `born_at`: -1 for the offset of a row's first event of a partition */
    int64_t n_touched;
    const int64_t *rows, *partition, *offset, *time;
    int64_t *newest, *born, *applied;
    int64_t *touched; /* int64[n]: the rows that events came for, each once */
    uint8_t *marks;   /* bool[rows]: all false between two calls */
    hw_ring *rings;
} hw_events;

/* Whether the place (time, partition, offset) lies before that in a state. */
static inline int before(int64_t time, int64_t partition, int64_t offset, const int64_t *state) {
    if (time != state[0]) return time < state[0];
    if (partition != state[1]) return partition < state[1];
    return offset < state[2];
}

static inline void put_place(const hw_events *e, int64_t i, hw_law *law, int64_t slot, int64_t *state) {
    state[0] = e->time[i], state[1] = e->partition[i], state[2] = e->offset[i];
    if (!law->slots) {
        state[3] = law->values[i];
        return;
    }
    /* The word that stands for the value is 0 between two calls; within one it says which event has it. */
    if (!state[3]) law->slots[law->n++] = slot;
    state[3] = i + 1;
}

static inline void apply(const hw_events *e, int64_t i, hw_law *law, int64_t slot, int64_t *state) {
    if (law->mask && !law->mask[i]) return;
    int64_t value;
    switch (law->kind) {
    case COUNT: state[0]++; break;
    case SUM:
        value = law->values[i];
        state[1] += (value >> 63) + __builtin_uaddl_overflow(state[0], value, (uint64_t *)state);
        break;
    case GREATEST:
        value = law->values[i];
        state[0] = value > state[0] ? value : state[0];
        break;
    case LEAST:
        value = law->values[i];
        state[0] = value < state[0] ? value : state[0];
        break;
    case LAST:
        if (state[0] == INT64_MIN || !before(e->time[i], e->partition[i], e->offset[i], state))
            put_place(e, i, law, slot, state);
        break;
    case FIRST:
        if (state[0] == INT64_MIN || before(e->time[i], e->partition[i], e->offset[i], state))
            put_place(e, i, law, slot, state);
        break;
    }
}

/* Which events a row has seen, and when its newest one was. */
static void advance(hw_events *e) {
    for (int64_t i = 0; i < e->n; i++) {
        int64_t row = e->rows[i], at = row * e->partitions + e->partition[i];
        if (!e->marks[row]) e->marks[row] = 1, e->touched[e->n_touched++] = row;
        if (e->time[i] > e->newest[row]) e->newest[row] = e->time[i];
        if (e->applied[at] < 0) e->born[at] = e->born_at < 0 ? INT64_MAX : e->born_at;
    }
    for (int64_t i = 0; e->born_at < 0 && i < e->n; i++) {
        int64_t at = e->rows[i] * e->partitions + e->partition[i];
        if (e->applied[at] < 0 && e->offset[i] < e->born[at]) e->born[at] = e->offset[i];
    }
    for (int64_t i = 0; i < e->n; i++) {
        int64_t at = e->rows[i] * e->partitions + e->partition[i];
        if (e->offset[i] > e->applied[at]) e->applied[at] = e->offset[i];
    }
    for (int64_t i = 0; i < e->n_touched; i++) e->marks[e->touched[i]] = 0;
}

/* Fold n events into their rows, none of which has one of them already. */
HW_API void hw_fold(hw_events *e) {
    advance(e);
    for (int64_t g = 0; g < e->n_rings; g++) {
        hw_ring *ring = e->rings + g;
        int64_t width = ring->width;
        for (int64_t i = 0; i < e->n; i++) {
            int64_t row = e->rows[i], tile = 0, slot = row * ring->slots;
            if (i + 8 < e->n) __builtin_prefetch(ring->tiles + e->rows[i + 8] * ring->slots);
            if (ring->hop) {
                tile = floor_div(e->time[i], ring->hop);
                /* Tiles that no window sees any more are left out. */
                if (e->newest[row] + 1 - ring->window >= (tile + 1) * ring->hop) continue;
                slot += tile - floor_div(tile, ring->slots) * ring->slots;
            }
            int64_t *record = ring->records + slot * width;
            if (ring->tiles[slot] != tile) {
                ring->tiles[slot] = record[0] = tile;
                memcpy(record + 1, ring->empty, 8 * (width - 1));
                if (ring->fresh) ring->fresh[ring->n_fresh++] = slot;
            }
            for (int64_t k = 0; k < ring->n_laws; k++) apply(e, i, ring->laws + k, slot, record + ring->laws[k].word);
        }
        for (int64_t k = 0; k < ring->n_laws; k++) {
            hw_law *law = ring->laws + k;
            for (int64_t j = 0; j < law->n; j++) {
                int64_t *place = ring->records + law->slots[j] * width + law->word + 3;
                law->events[j] = *place - 1;
                *place = 0;
            }
        }
    }
}
