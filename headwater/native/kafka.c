/* librdkafka's messages -> one piece of memory and arrays of numbers.
 *
 * The functions of librdkafka are given as addresses: the library that confluent-kafka brings is loaded already, and
 * this one needs no headers of it. The struct is public and part of its ABI (rdkafka.h, rd_kafka_message_t).
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "native.h"

typedef struct {
    int err;
    void *rkt;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *_private;
} message;

typedef int64_t (*timestamp_function)(const message *, int *);
typedef void (*destroy_function)(message *);

/* How many bytes the values of n messages have together. */
HW_API int64_t hw_size(message **messages, int64_t n) {
    int64_t size = 0;
    for (int64_t i = 0; i < n; i++)
        if (!messages[i]->err) size += messages[i]->len;
    return size;
}

/* Copies the values of the messages that are no errors behind each other, and their numbers into arrays of one item
 * each; ends has one more. Errors keep their place in `messages`, as the first ones. Gives how many were copied. */
HW_API int64_t hw_take(message **messages, int64_t n, timestamp_function timestamp, uint8_t *data, int64_t *ends,
                       uint8_t *null, int64_t *topic, int64_t *partition, int64_t *offset, int64_t *time, int8_t *kind) {
    int64_t count = 0, at = 0, errors = 0;
    ends[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        message *m = messages[i];
        int type = 0;
        if (m->err) {
            messages[i] = messages[errors];
            messages[errors++] = m;
            continue;
        }
        if (m->len) memcpy(data + at, m->payload, m->len);
        null[count] = m->payload == NULL;
        topic[count] = (int64_t)(intptr_t)m->rkt;
        partition[count] = m->partition;
        offset[count] = m->offset;
        time[count] = timestamp(m, &type);
        kind[count] = (int8_t)type;
        ends[++count] = at += m->len;
    }
    return count;
}

/* Gives messages back to librdkafka. */
HW_API void hw_destroy(message **messages, int64_t n, destroy_function destroy) {
    for (int64_t i = 0; i < n; i++) destroy(messages[i]);
}

HW_API int hw_abi(void) { return HW_ABI; }
