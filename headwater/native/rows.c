/* Rows of a table -> the bytes of headwater/rows/codec.py, straight from its rings; and rows' packed columns -> their words.
 *
 * Rows are written in two steps, because values of any length are Python's: `hw_measure` says which tiles each row has,
 * Python puts together the tails, `hw_write` writes all words and the digests.
 */
#include <string.h> /* and with it, under glibc, __GLIBC__ */

#include "native.h"

typedef struct {
    const int64_t *tiles;   /* int64[capacity, slots]: which tile a slot holds */
    const int64_t *records; /* int64[capacity, slots, width] */
    int64_t *held;          /* for groups with values of any length: the slots held, row by row, tiles rising; or NULL */
    const int64_t *places;  /* int64[n_pointers]: the words of a record that stand for such values */
    const int64_t *pointers; /* int64[n_pointers, held]: what stands there */
    int64_t slots, width, hop, window, n_pointers, n_held; /* `hop`: 0 for the lifetime */
} hw_group;

typedef struct {
    int64_t n, n_groups, count_words, partitions; /* `partitions`: columns of `born` and `applied` */
    const int64_t *rows, *newest, *born, *applied;
    hw_group *groups;
    int64_t kind, state_hash; /* word 1 without its counts, word 2 */
} hw_rows;

static inline int64_t slot_of(int64_t tile, int64_t slots) {
    return tile - floor_div(tile, slots) * slots;
}

/* The first tile that a row may have which is read just behind its newest event. */
static inline int64_t first_tile(const hw_group *group, int64_t newest) {
    return group->hop ? floor_div(newest + 1 - group->window, group->hop) : 0;
}

/* Ask for memory that is read soon: rows lie anywhere, and waiting for each one's first lines is most of the work. */
static inline void soon(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at);
}

/* The tiles of each row by group, uint16[n, 4 * count_words], and the most bytes that it takes without the tail. */
HW_API void hw_measure(hw_rows *t, uint16_t *counts, int64_t *sizes) {
    memset(counts, 0, 8 * t->n * t->count_words);
    for (int64_t g = 0; g < t->n_groups; g++) t->groups[g].n_held = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int64_t row = t->rows[i], size = 8 * (4 + t->count_words + 1);
        for (int64_t g = 0; i + 2 < t->n && g < t->n_groups; g++)
            soon(t->groups[g].tiles + t->rows[i + 2] * t->groups[g].slots, 8 * t->groups[g].slots);
        for (int64_t p = 0; p < t->partitions; p++)
            if (t->applied[row * t->partitions + p] >= 0) size += 24;
        for (int64_t g = 0; g < t->n_groups; g++) {
            hw_group *group = t->groups + g;
            const int64_t *tiles = group->tiles + row * group->slots;
            int64_t tile = first_tile(group, t->newest[row]), slot = slot_of(tile, group->slots), held = 0;
            for (int64_t k = 0; k < group->slots; k++, tile++) {
                if (tiles[slot] == tile) {
                    if (group->held) group->held[group->n_held + held] = row * group->slots + slot;
                    held++;
                }
                if (++slot == group->slots) slot = 0;
            }
            group->n_held += held;
            counts[4 * t->count_words * i + g] = (uint16_t)held;
            if (held) size += group->width * (1 + 8 * held);
        }
        sizes[i] = size;
    }
}

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default"))) /* the loader takes what fits */
#else
#define FOR_EACH_PROCESSOR
#endif

/* ---- xxh3, 64 bits, no seed: the digest of a row, and so of at least 24 bytes (github.com/Cyan4973/xxHash, its spec) */

static const uint8_t SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};
static const uint64_t P32_1 = 0x9E3779B1U, P32_2 = 0x85EBCA77U, P32_3 = 0xC2B2AE3DU;
static const uint64_t P64_1 = 0x9E3779B185EBCA87ULL, P64_2 = 0xC2B2AE3D27D4EB4FULL, P64_3 = 0x165667B19E3779F9ULL;
static const uint64_t P64_4 = 0x85EBCA77C2B2AE63ULL, P64_5 = 0x27D4EB2F165667C5ULL;

static inline uint64_t word(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

static inline uint64_t folded(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t avalanche(uint64_t h) {
    h = (h ^ h >> 37) * 0x165667919E3779F9ULL;
    return h ^ h >> 32;
}

static inline uint64_t mixed(const uint8_t *p, const uint8_t *secret) {
    return folded(word(p) ^ word(secret), word(p + 8) ^ word(secret + 8));
}

static inline void accumulate(uint64_t *acc, const uint8_t *p, const uint8_t *secret) {
    for (int i = 0; i < 8; i++) {
        uint64_t value = word(p + 8 * i), key = value ^ word(secret + 8 * i);
        acc[i ^ 1] += value;
        acc[i] += (uint64_t)(uint32_t)key * (key >> 32);
    }
}

FOR_EACH_PROCESSOR
static uint64_t xxh3(const uint8_t *p, int64_t n) {
    uint64_t sum = (uint64_t)n * P64_1;
    if (n <= 128) {
        for (int64_t i = (n - 1) / 32; i >= 0; i--) {
            sum += mixed(p + 16 * i, SECRET + 32 * i);
            sum += mixed(p + n - 16 * (i + 1), SECRET + 32 * i + 16);
        }
        return avalanche(sum);
    }
    if (n <= 240) {
        for (int64_t i = 0; i < 8; i++) sum += mixed(p + 16 * i, SECRET + 16 * i);
        sum = avalanche(sum);
        for (int64_t i = 8; i < n / 16; i++) sum += mixed(p + 16 * i, SECRET + 16 * (i - 8) + 3);
        return avalanche(sum + mixed(p + n - 16, SECRET + 119));
    }
    uint64_t acc[8] = {P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1};
    int64_t blocks = (n - 1) / 1024, stripes = (n - 1) % 1024 / 64;
    for (int64_t b = 0; b < blocks; b++, p += 1024) {
        for (int64_t i = 0; i < 16; i++) accumulate(acc, p + 64 * i, SECRET + 8 * i);
        for (int i = 0; i < 8; i++) acc[i] = (acc[i] ^ acc[i] >> 47 ^ word(SECRET + 128 + 8 * i)) * P32_1;
    }
    for (int64_t i = 0; i < stripes; i++) accumulate(acc, p + 64 * i, SECRET + 8 * i);
    accumulate(acc, p + (n - 1024 * blocks) - 64, SECRET + 121);
    for (int i = 0; i < 4; i++)
        sum += folded(acc[2 * i] ^ word(SECRET + 11 + 16 * i), acc[2 * i + 1] ^ word(SECRET + 19 + 16 * i));
    return avalanche(sum);
}

/* What stands around each row: before row i `before[edges[i]:edges[i + 1]]` and its length as "$123\r\n", behind it `behind`.
 * NULL for nothing. */
typedef struct {
    const uint8_t *before, *behind;
    const int64_t *edges;
    int64_t n_behind;
} hw_frames;

#define LENGTH 24 /* bytes that a row's length takes at most; frames.py leaves as many */

static inline uint8_t *put(uint8_t *to, const void *from, int64_t n) {
    memcpy(to, from, n);
    return to + n;
}

/* Put a row's length where LENGTH bytes were left for it, and the row right behind it. Its end. */
static uint8_t *framed(uint8_t *row, int64_t size) {
    char digits[LENGTH];
    int64_t n = LENGTH, left = size;
    digits[--n] = '\n', digits[--n] = '\r';
    do digits[--n] = (char)('0' + left % 10);
    while (left /= 10);
    digits[--n] = '$';
    uint8_t *to = put(row - LENGTH, digits + n, LENGTH - n);
    memmove(to, row, size);
    return to + size;
}

/* ---- packed columns: headwater/rows/packing.py has their form */

static inline int64_t bytes_of(uint64_t value) {
    return value < 1 ? 0 : value < 1 << 8 ? 1 : value < 1 << 16 ? 2 : value < (uint64_t)1 << 32 ? 4 : 8;
}

static const uint8_t SIZES[16] = {[0] = 1, [1] = 1, [2] = 1, [4] = 1, [8] = 1}; /* that items and bases may have */

#define PACK_ITEMS(type)                                   \
    for (int64_t i = 0; i < n; i++) {                      \
        type item = (type)((uint64_t)from[i] - base);      \
        memcpy(to + i * sizeof item, &item, sizeof item);  \
    }
#define UNPACK_ITEMS(type)                                   \
    for (int64_t i = 0; i < n; i++, from += sizeof(type)) {  \
        type item;                                           \
        memcpy(&item, from, sizeof item);                    \
        to[i * step] = (int64_t)(base + item);               \
    }

/* Columns of n words each, n at least 1, behind each other. One takes at most 1 + 8 * n bytes. */
FOR_EACH_PROCESSOR
static uint8_t *pack_columns(uint8_t *to, const int64_t *from, int64_t n, int64_t columns) {
    for (; columns > 0; columns--, from += n) {
        int64_t low = from[0], high = from[0];
        for (int64_t i = 1; i < n; i++) {
            low = from[i] < low ? from[i] : low;
            high = from[i] > high ? from[i] : high;
        }
        int64_t of_item = bytes_of((uint64_t)high - (uint64_t)low);
        uint64_t base = of_item == 8 || (low >= 0 && bytes_of(high) == of_item) ? 0 : (uint64_t)low;
        int64_t of_base = bytes_of(base);
        *to++ = (uint8_t)(of_item | of_base << 4);
        to = put(to, &base, of_base);
        switch (of_item) {
        case 1: PACK_ITEMS(uint8_t) break;
        case 2: PACK_ITEMS(uint16_t) break;
        case 4: PACK_ITEMS(uint32_t) break;
        case 8: PACK_ITEMS(uint64_t) break;
        }
        to += n * of_item;
    }
    return to;
}

/* The same back; NULL where the bytes up to `end` are no such column. */
static const uint8_t *unpack_column(const uint8_t *from, const uint8_t *end, int64_t *to, int64_t n, int64_t step) {
    if (from >= end) return NULL;
    int64_t of_item = *from & 15, of_base = *from >> 4;
    from++;
    if (!SIZES[of_item] || !SIZES[of_base] || end - from < of_base + of_item * n) return NULL;
    uint64_t base = 0;
    memcpy(&base, from, of_base);
    from += of_base;
    switch (of_item) {
    case 0:
        for (int64_t i = 0; i < n; i++) to[i * step] = (int64_t)base;
        break;
    case 1: UNPACK_ITEMS(uint8_t) break;
    case 2: UNPACK_ITEMS(uint16_t) break;
    case 4: UNPACK_ITEMS(uint32_t) break;
    case 8: UNPACK_ITEMS(uint64_t) break;
    }
    return from;
}

/* The byte behind the groups of a row, or -1 where the bytes from `at` to `end` are no packed groups. */
static int64_t unpack_groups(const uint8_t *rows, int64_t at, int64_t end, const int64_t *counts, const int64_t *widths,
                             int64_t n_groups, int64_t **to) {
    const uint8_t *from = rows + at;
    for (int64_t g = 0; g < n_groups; g++) {
        for (int64_t c = 0; from && counts[g] && c < widths[g]; c++)
            from = unpack_column(from, rows + end, *to + c, counts[g], widths[g]);
        *to += counts[g] * widths[g];
    }
    return from ? from - rows : -1;
}

/* The words of n rows' groups, row by row and group by group; `tails` gets the byte behind each row's groups, or -1.
 * counts: int64[n, n_groups], the tiles of each group. */
HW_API void hw_unpack(const uint8_t *rows, const int64_t *first, const int64_t *ends, const int64_t *counts,
                      const int64_t *widths, int64_t n_groups, int64_t n, int64_t *out, int64_t *tails) {
    for (int64_t i = 0; i < n; i++)
        tails[i] = unpack_groups(rows, first[i], ends[i], counts + i * n_groups, widths, n_groups, &out);
}

/* The same for one row of `size` bytes, which has its counts, as uint16, at `counts_at`. */
HW_API int64_t hw_unpack_row(const uint8_t *row, int64_t size, int64_t counts_at, int64_t first, const int64_t *widths,
                             int64_t n_groups, int64_t *out) {
    int64_t tail = first;
    for (int64_t g = 0; tail >= 0 && g < n_groups; g++) {
        uint16_t count;
        memcpy(&count, row + counts_at + 2 * g, sizeof count);
        int64_t tiles = count;
        tail = unpack_groups(row, tail, size, &tiles, widths + g, 1, &out);
    }
    return tail;
}

/* The tiles of one row and group, column by column: word c of tile i at `to[c * n + i]`, n being how many they are. */
static void columns_of(int64_t *to, const hw_group *group, int64_t row, int64_t tile, int64_t n, int64_t *at) {
    const int64_t *tiles = group->tiles + row * group->slots;
    const int64_t *records = group->records + row * group->slots * group->width;
    int64_t slot = slot_of(tile, group->slots), width = group->width;
    for (int64_t i = 0; i < n; tile++) {
        if (tiles[slot] == tile) {
            const int64_t *record = records + slot * width;
            for (int64_t c = 0; c < width; c++) to[c * n + i] = record[c];
            i++;
        }
        if (++slot == group->slots) slot = 0;
    }
    for (int64_t k = 0; k < group->n_pointers; k++)
        memcpy(to + group->places[k] * n, group->pointers + k * group->n_held + *at, 8 * n);
    *at += n;
}

/* All rows behind each other, with what stands around them; `ends` gets where each one ends, framed. `tails` are the rows'
 * values of any length and `lengths` the bytes of each, or NULL. `scratch` has room for the tiles of any group. */
HW_API void hw_write(const hw_rows *t, const uint16_t *counts, const int64_t *lengths, const uint8_t *tails,
                     const hw_frames *frames, int64_t *scratch, uint8_t *out, int64_t *ends, uint64_t *digests) {
    int64_t at[64] = {0};
    uint8_t *to = out;
    for (int64_t i = 0; i < t->n; i++) {
        int64_t row = t->rows[i], parts = 0;
        for (int64_t g = 0; i + 1 < t->n && g < t->n_groups; g++) {
            int64_t next = t->rows[i + 1] * t->groups[g].slots;
            soon(t->groups[g].records + next * t->groups[g].width, 8 * t->groups[g].slots * t->groups[g].width);
        }
        if (frames) to = put(to, frames->before + frames->edges[i], frames->edges[i + 1] - frames->edges[i]) + LENGTH;
        uint8_t *start = to;
        to += 32;
        for (int64_t p = 0; p < t->partitions; p++) {
            int64_t applied = t->applied[row * t->partitions + p];
            if (applied < 0) continue;
            int64_t part[3] = {p, t->born[row * t->partitions + p], applied};
            to = put(to, part, sizeof part);
            parts++;
        }
        int64_t head[3] = {t->kind | parts << 16 | (lengths ? lengths[i] << 32 : 0), t->state_hash, t->newest[row]};
        put(start + 8, head, sizeof head);
        to = put(to, counts + 4 * t->count_words * i, 8 * t->count_words);
        for (int64_t g = 0; g < t->n_groups; g++) {
            int64_t held = counts[4 * t->count_words * i + g], width = t->groups[g].width;
            if (!held) continue;
            columns_of(scratch, t->groups + g, row, first_tile(t->groups + g, t->newest[row]), held, at + g);
            to = pack_columns(to, scratch, held, width);
        }
        if (lengths) {
            to = put(to, tails, lengths[i]);
            tails += lengths[i];
        }
        while ((to - start) & 7) *to++ = 0;
        digests[i] = xxh3(start + 8, to - start - 8);
        put(start, digests + i, 8);
        if (frames) to = put(framed(start, to - start), frames->behind, frames->n_behind);
        ends[i] = to - out;
    }
}

/* The digest of n bytes, n at least 17: for the test that holds it against another implementation. */
HW_API uint64_t hw_xxh3(const uint8_t *p, int64_t n) { return xxh3(p, n); }
