/* JSON events -> columns.
 *
 * Reads what is plain, and says of everything else that it is odd: broken text, another type than the field's, an
 * integer of more than 18 digits, a field that comes twice, deep nesting, a lone surrogate. Odd events are decoded
 * one by one in Python (headwater/events/decode.py), which alone decides what becomes of them; so this file may
 * refuse anything, but must never take what Python would refuse or read otherwise.
 *
 * Values lie at the event's number in the batch. A string is a code: the number of a distinct text of this batch.
 * Of a list its length lies there; its elements lie in `store`, one behind the other: a slot each, two for a string
 * (where it begins, and its length).
 */
#define _GNU_SOURCE
#include <locale.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum { INT64 = 0, FLOAT64 = 1, STRING = 2, BOOL = 3, TIMESTAMP = 4 };
enum { MAX_NESTING = 64, MAX_FIELDS = 64 };

#define YEAR_1 (-62135596800LL * 1000000)
#define YEAR_9999_END (253402300800LL * 1000000 - 1)

typedef const uint8_t *text;

typedef struct {
    int32_t type;
    int32_t wanted;
    int32_t list; /* 1: lists of values of the type */
    int32_t name_length;
    const char *name;
    int64_t *values; /* int64[n]: integers, the bits of doubles, 0 or 1, microseconds, codes; lengths of lists */
    uint8_t *valid;  /* uint8[n] */
    int64_t *starts; /* int64[n], strings: where each distinct text begins, ~start where that is in the scratch */
    int64_t *lengths;
    int32_t *slots; /* int32[slot_mask + 1], strings: code + 1, 0 for none */
    uint64_t *hashes;
    int64_t slot_mask;
    int64_t count;  /* distinct texts */
    int64_t length; /* that lists must have; -1: any */
    int64_t *firsts; /* int64[n], lists: where the elements begin in the store */
} hw_field;

typedef struct {
    text data;
    uint8_t *scratch;
    int64_t scratch_used;
    hw_field *fields;
    int32_t n_fields;
    int64_t *store; /* elements take two bytes of JSON at least, strings three: 2/3 of the data's length is enough */
    int64_t stored;
} batch;

static inline text blank(text p, text end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) p++;
    return p;
}

static int is_ascii(text p, int64_t n) {
    uint64_t all = 0, word;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        all |= word;
    }
    for (; n > 0; n--) all |= *p++;
    return !(all & 0x8080808080808080ULL);
}

/* Strict UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF. */
static int is_utf8(text p, text end) {
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80) continue;
        int more = c >= 0xC2 && c <= 0xDF ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
        if (!more || end - p < more) return 0;
        uint8_t low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (*p < low || *p > high) return 0;
        for (int i = 1; i < more; i++)
            if ((p[i] & 0xC0) != 0x80) return 0;
        p += more;
    }
    return 1;
}

static int hex4(text p, uint32_t *out) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i];
        uint32_t digit;
        if (c >= '0' && c <= '9') digit = c - '0';
        else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
        else return 0;
        value = value << 4 | digit;
    }
    *out = value;
    return 1;
}

/* p stands behind the opening quote. Gives the closing quote, or NULL; *escaped says whether there was a backslash. */
static inline text string_end(text p, text end, int *escaped) {
    *escaped = 0;
    for (;;) {
        while (end - p >= 8) { /* eight at a time: none is a quote, a backslash or a control character */
            uint64_t w, quote, slash, low;
            memcpy(&w, p, 8);
            quote = w ^ 0x2222222222222222ULL;
            slash = w ^ 0x5C5C5C5C5C5C5C5CULL;
            low = (w - 0x2020202020202020ULL) & ~w;
            quote = (quote - 0x0101010101010101ULL) & ~quote;
            slash = (slash - 0x0101010101010101ULL) & ~slash;
            if ((quote | slash | low) & 0x8080808080808080ULL) break;
            p += 8;
        }
        if (p >= end) return NULL;
        uint8_t c = *p;
        if (c == '"') return p;
        if (c < 0x20) return NULL;
        if (c == '\\') {
            uint32_t unit, second;
            *escaped = 1;
            if (end - p < 2) return NULL;
            switch (p[1]) {
            case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
                p += 2;
                continue;
            case 'u':
                if (end - p < 6 || !hex4(p + 2, &unit)) return NULL;
                p += 6;
                if (unit >= 0xDC00 && unit <= 0xDFFF) return NULL;
                if (unit >= 0xD800 && unit <= 0xDBFF) {
                    if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !hex4(p + 2, &second)) return NULL;
                    if (second < 0xDC00 || second > 0xDFFF) return NULL;
                    p += 6;
                }
                continue;
            default:
                return NULL;
            }
        }
        p++;
    }
}

/* The text of a string that string_end has passed; its UTF-8 is never longer than its escapes. */
static int64_t unescaped(text p, text end, uint8_t *out) {
    uint8_t *begin = out;
    while (p < end) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        uint32_t code = 0, second = 0;
        switch (p[1]) {
        case 'b': *out++ = '\b'; p += 2; break;
        case 'f': *out++ = '\f'; p += 2; break;
        case 'n': *out++ = '\n'; p += 2; break;
        case 'r': *out++ = '\r'; p += 2; break;
        case 't': *out++ = '\t'; p += 2; break;
        case 'u':
            hex4(p + 2, &code);
            p += 6;
            if (code >= 0xD800 && code <= 0xDBFF) {
                hex4(p + 2, &second);
                p += 6;
                code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
            }
            if (code < 0x80) *out++ = (uint8_t)code;
            else if (code < 0x800) {
                *out++ = (uint8_t)(0xC0 | code >> 6);
                *out++ = (uint8_t)(0x80 | (code & 0x3F));
            } else if (code < 0x10000) {
                *out++ = (uint8_t)(0xE0 | code >> 12);
                *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
                *out++ = (uint8_t)(0x80 | (code & 0x3F));
            } else {
                *out++ = (uint8_t)(0xF0 | code >> 18);
                *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3F));
                *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
                *out++ = (uint8_t)(0x80 | (code & 0x3F));
            }
            break;
        default: *out++ = p[1]; p += 2; /* a quote, a slash, a backslash */
        }
    }
    return out - begin;
}

static inline int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

/* A JSON number. Gives what is behind it, or NULL. *whole: neither fraction nor exponent. */
static inline text number_end(text p, text end, int *whole) {
    *whole = 1;
    if (p < end && *p == '-') p++;
    if (p >= end || !is_digit(*p)) return NULL;
    if (*p == '0') p++;
    else while (p < end && is_digit(*p)) p++;
    if (p < end && *p == '.') {
        *whole = 0;
        if (++p >= end || !is_digit(*p)) return NULL;
        while (p < end && is_digit(*p)) p++;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        *whole = 0;
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (p >= end || !is_digit(*p)) return NULL;
        while (p < end && is_digit(*p)) p++;
    }
    return p;
}

static inline int literal(text p, text end, const char *word, int n) { return end - p >= n && !memcmp(p, word, n); }

/* What is behind any value, or NULL. Only for values that nobody reads. */
static text skipped(text p, text end, int depth) {
    int escaped, whole;
    if (p >= end || depth > MAX_NESTING) return NULL;
    switch (*p) {
    case '"':
        p = string_end(p + 1, end, &escaped);
        return p ? p + 1 : NULL;
    case 't': return literal(p, end, "true", 4) ? p + 4 : NULL;
    case 'f': return literal(p, end, "false", 5) ? p + 5 : NULL;
    case 'n': return literal(p, end, "null", 4) ? p + 4 : NULL;
    case '[':
    case '{': {
        int object = *p == '{';
        uint8_t close = object ? '}' : ']';
        p = blank(p + 1, end);
        if (p < end && *p == close) return p + 1;
        for (;;) {
            if (object) {
                if (p >= end || *p != '"' || !(p = string_end(p + 1, end, &escaped))) return NULL;
                p = blank(p + 1, end);
                if (p >= end || *p != ':') return NULL;
                p = blank(p + 1, end);
            }
            if (!(p = skipped(p, end, depth + 1))) return NULL;
            p = blank(p, end);
            if (p >= end) return NULL;
            if (*p == close) return p + 1;
            if (*p != ',') return NULL;
            p = blank(p + 1, end);
        }
    }
    default: return number_end(p, end, &whole);
    }
}

/* ---- numbers */

static int read_int(text p, text end, int64_t *out) {
    int negative = *p == '-';
    int64_t value = 0;
    p += negative;
    if (end - p > 18) return 0;
    for (; p < end; p++) value = value * 10 + (*p - '0');
    *out = negative ? -value : value;
    return 1;
}

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static locale_t c_locale;

/* The nearest double. At most 2**53 times or over an exact power of ten is one rounding, so exact; the rest is strtod's. */
static int read_double(text p, text end, int64_t *out) {
    text begin = p;
    int negative = *p == '-', digits = 0, exponent = 0;
    uint64_t mantissa = 0;
    double value;
    p += negative;
    for (; p < end && is_digit(*p); p++, digits += mantissa != 0) mantissa = mantissa * 10 + (*p - '0');
    if (p < end && *p == '.')
        for (p++; p < end && is_digit(*p); p++, digits += mantissa != 0) {
            mantissa = mantissa * 10 + (*p - '0');
            exponent--;
        }
    if (p == end && digits <= 18 && mantissa <= 1ULL << 53 && exponent >= -22) {
        value = (double)mantissa / POWERS[-exponent];
        if (negative) value = -value;
    } else {
        char copy[64], *stop;
        if (end - begin > 63) return 0;
        memcpy(copy, begin, end - begin);
        copy[end - begin] = 0;
        value = strtod_l(copy, &stop, c_locale);
        if (stop != copy + (end - begin) || value - value != 0) return 0; /* an infinity less itself is not 0 */
    }
    value += 0.0; /* no -0.0 */
    memcpy(out, &value, 8);
    return 1;
}

/* ---- timestamps */

static inline int two(text p) { return is_digit(p[0]) && is_digit(p[1]) ? (p[0] - '0') * 10 + (p[1] - '0') : -1; }

static int64_t days_of(int64_t year, int month, int day) {
    /* Howard Hinnant's days_from_civil: years begin in March, eras have 400 years. */
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int read_timestamp(text p, text end, int64_t *out) {
    static const uint8_t DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (end - p < 19) return 0;
    int century = two(p), of_century = two(p + 2), month = two(p + 5), day = two(p + 8);
    int hour = two(p + 11), minute = two(p + 14), second = two(p + 17);
    if (century < 0 || of_century < 0 || p[4] != '-' || p[7] != '-' || p[13] != ':' || p[16] != ':') return 0;
    if (p[10] != 'T' && p[10] != 't' && p[10] != ' ') return 0;
    int64_t year = century * 100 + of_century;
    if (year < 1 || month < 1 || month > 12 || day < 1 || hour < 0 || hour > 23) return 0;
    if (minute < 0 || minute > 59 || second < 0 || second > 59) return 0;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > DAYS[month - 1] + (month == 2 && leap)) return 0;
    p += 19;
    int64_t fraction = 0;
    if (p < end && *p == '.') {
        int digits = 0;
        for (p++; p < end && is_digit(*p); p++, digits++)
            if (digits < 6) fraction = fraction * 10 + (*p - '0');
        if (digits < 1 || digits > 9) return 0;
        for (; digits < 6; digits++) fraction *= 10;
    }
    int64_t ahead = 0;
    if (p < end && (*p == 'Z' || *p == 'z')) p++;
    else if (p < end && (*p == '+' || *p == '-')) {
        if (end - p != 6 || p[3] != ':') return 0;
        int hours = two(p + 1), minutes = two(p + 4);
        if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return 0;
        ahead = (hours * 60 + minutes) * 60 * (*p == '-' ? -1 : 1);
        p += 6;
    }
    if (p != end) return 0;
    int64_t seconds = days_of(year, month, day) * 86400 + (hour * 60 + minute) * 60 + second - ahead;
    *out = seconds * 1000000 + fraction;
    return *out >= YEAR_1 && *out <= YEAR_9999_END;
}

/* ---- strings */

static inline uint64_t hash_of(text p, int64_t n) {
    uint64_t h = 0x9E3779B97F4A7C15ULL ^ (uint64_t)n, w;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * 0xD6E8FEB86659FD93ULL;
        h ^= h >> 32;
    }
    w = 0;
    memcpy(&w, p, n);
    h = (h ^ w) * 0xD6E8FEB86659FD93ULL;
    return h ^ h >> 32;
}

static int64_t code_of(batch *b, hw_field *f, text p, int64_t n, int64_t start) {
    uint64_t hash = hash_of(p, n);
    int64_t at = hash & f->slot_mask;
    for (; f->slots[at]; at = (at + 1) & f->slot_mask) {
        int64_t code = f->slots[at] - 1;
        if (f->hashes[code] != hash || f->lengths[code] != n) continue;
        int64_t other = f->starts[code];
        if (!memcmp(other < 0 ? b->scratch + ~other : b->data + other, p, n)) return code;
    }
    f->slots[at] = (int32_t)(f->count + 1);
    f->hashes[f->count] = hash;
    f->starts[f->count] = start;
    f->lengths[f->count] = n;
    return f->count++;
}

/* ---- events */

/* Any value but null. Gives what is behind it, or NULL where it is odd. */
static inline text scalar_of(batch *b, hw_field *f, int64_t *out, text p, text end) {
    int whole, escaped;
    text stop;
    if (p >= end) return NULL;
    if (*p == '"') {
        if (f->type != STRING && f->type != TIMESTAMP) return NULL;
        if (!(stop = string_end(p + 1, end, &escaped))) return NULL;
        if (f->type == TIMESTAMP) return !escaped && read_timestamp(p + 1, stop, out) ? stop + 1 : NULL;
        if (!f->wanted) return stop + 1;
        text from = p + 1;
        int64_t n = stop - from, start = from - b->data, before = f->count;
        if (escaped) {
            uint8_t *to = b->scratch + b->scratch_used;
            n = unescaped(from, stop, to);
            from = to;
            start = ~b->scratch_used;
        }
        if (f->list) {
            out[0] = start;
            out[1] = n;
        } else *out = code_of(b, f, from, n, start);
        if (escaped && (f->list || f->count > before)) b->scratch_used += n;
        return stop + 1;
    }
    if (f->type == BOOL) {
        *out = *p == 't';
        if (literal(p, end, "true", 4)) return p + 4;
        return literal(p, end, "false", 5) ? p + 5 : NULL;
    }
    if (f->type == STRING || !(stop = number_end(p, end, &whole))) return NULL;
    if (f->type == FLOAT64) return read_double(p, stop, out) ? stop : NULL;
    if (!whole || !read_int(p, stop, out)) return NULL;
    if (f->type == TIMESTAMP && (*out < YEAR_1 || *out > YEAR_9999_END)) return NULL;
    return stop;
}

/* A list. Gives what is behind it, or NULL where it, its length or an element is odd. */
static text list_of(batch *b, hw_field *f, int64_t i, text p, text end) {
    int64_t nowhere[2], count = 0, slots = f->type == STRING ? 2 : 1;
    if (*p != '[') return NULL;
    f->firsts[i] = b->stored;
    p = blank(p + 1, end);
    if (p < end && *p == ']') p++;
    else
        for (;;) {
            if (!(p = scalar_of(b, f, f->wanted ? b->store + b->stored : nowhere, p, end))) return NULL;
            if (f->wanted) b->stored += slots;
            count++;
            p = blank(p, end);
            if (p >= end) return NULL;
            if (*p == ']') {
                p++;
                break;
            }
            if (*p != ',') return NULL;
            p = blank(p + 1, end);
        }
    f->values[i] = count;
    return f->length < 0 || count == f->length ? p : NULL;
}

/* The value of a known field. Gives what is behind it, or NULL where it is odd. */
static text value_of(batch *b, hw_field *f, int64_t i, text p, text end) {
    if (p >= end) return NULL;
    f->valid[i] = *p != 'n';
    if (*p == 'n') return literal(p, end, "null", 4) ? p + 4 : NULL;
    return f->list ? list_of(b, f, i, p, end) : scalar_of(b, f, f->values + i, p, end);
}

static int find(batch *b, text name, int64_t n, int guess) {
    for (int k = 0; k < b->n_fields; k++) {
        int i = guess + k;
        if (i >= b->n_fields) i -= b->n_fields;
        if (b->fields[i].name_length == n && !memcmp(b->fields[i].name, name, n)) return i;
    }
    return -1;
}

/* Whether event i was read; where not, it is odd. */
static int read_event(batch *b, int64_t i, text p, text end) {
    uint64_t seen = 0;
    int guess = 0, escaped;
    if (!is_ascii(p, end - p) && !is_utf8(p, end)) return 0;
    p = blank(p, end);
    if (p >= end || *p != '{') return 0;
    p = blank(p + 1, end);
    if (p < end && *p == '}') p++;
    else
        for (;;) {
            if (p >= end || *p != '"') return 0;
            text name = p + 1;
            if (!(p = string_end(name, end, &escaped)) || escaped) return 0;
            int field = find(b, name, p - name, guess);
            p = blank(p + 1, end);
            if (p >= end || *p != ':') return 0;
            p = blank(p + 1, end);
            if (field < 0) p = skipped(p, end, 0);
            else {
                if (seen >> field & 1) return 0;
                seen |= 1ULL << field;
                guess = field + 1 < b->n_fields ? field + 1 : 0;
                p = value_of(b, b->fields + field, i, p, end);
            }
            if (!p) return 0;
            p = blank(p, end);
            if (p >= end) return 0;
            if (*p == '}') {
                p++;
                break;
            }
            if (*p != ',') return 0;
            p = blank(p + 1, end);
        }
    for (int k = 0; k < b->n_fields; k++)
        if (!(seen >> k & 1)) b->fields[k].valid[i] = 0;
    return blank(p, end) == end;
}

/* Reads n events: event i is data[ends[i]:ends[i + 1]]. odd[i] is 1 where it was not read. `scratch` is as long as
 * the data, `store` 2/3 as many items where there are lists. Gives how many are odd, or -1 where the fields are too
 * many. */
HW_API int64_t hw_read_json(text data, const int64_t *ends, int64_t n, hw_field *fields, int32_t n_fields,
                            uint8_t *odd, uint8_t *scratch, int64_t *store) {
    batch b = {data, scratch, 0, fields, n_fields, store, 0};
    int64_t count = 0;
    if (n_fields > MAX_FIELDS) return -1;
    if (!c_locale && !(c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0))) return -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t stored = b.stored;
        int read = read_event(&b, i, data + ends[i], data + ends[i + 1]);
        odd[i] = !read;
        if (!read) {
            count++;
            b.stored = stored;
            for (int k = 0; k < n_fields; k++) fields[k].valid[i] = 0;
        }
        for (int k = 0; k < n_fields; k++)
            if (!fields[k].valid[i]) fields[k].values[i] = fields[k].type == STRING && !fields[k].list ? -1 : 0;
    }
    return count;
}
