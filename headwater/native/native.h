/* What all files of this library share. It has no state, knows nothing of Python, and is called without its lock. */
#ifndef HEADWATER_NATIVE_H
#define HEADWATER_NATIVE_H

#include <stdint.h>

#define HW_API __attribute__((visibility("default")))

/* Raised with every change of a signature; headwater/native/__init__.py asks for it. */
#define HW_ABI 6

static inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

#endif
