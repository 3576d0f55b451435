/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ZOO_H
#define ZOO_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ZOO_NAME_SIZE 8
#define ZOO_MAX (ZOO_NAME_SIZE * 2)
#define ZOO_INIT {0}

typedef uint16_t zoo_id;
typedef int zoo_vector[3];
enum { ZOO_FIRST = 3, ZOO_SECOND };
enum zoo_sign { ZOO_MINUS = -1, ZOO_PLUS = 1 };
typedef enum { ZOO_CAT = 1, ZOO_DOG = 1 << 4 } zoo_kind;

struct zoo_cage; /* never defined */
struct zoo_animal;

/* What a visitor is called with. */
typedef int (*zoo_visit)(const struct zoo_animal *animal, const char *name, void *data);
typedef bool zoo_filter(zoo_id id);
typedef struct zoo_cage *zoo_handle;

/* A \ back and a '''quote'''. */
struct zoo_animal {
    zoo_id id;
    char name[ZOO_NAME_SIZE];
    zoo_kind kind;
    enum zoo_sign sign;
    struct {
        double weight;
        struct { uint8_t a, b; } marks[2][3];
    } body;
    union {
        uint64_t whole;
        struct { uint32_t low, high; };
    };
    struct zoo_animal *next;
    zoo_visit visit;
    bool (*check)(zoo_id id);
    const char *const *titles;
    void *owner;
    int8_t from;
    long double size;
    zoo_vector place;
    bool tame;
};

typedef union { float real; unsigned char bytes[4]; } zoo_word;

typedef struct zoo_flags {
    unsigned int low : 3;
    unsigned int middle : 30;
    unsigned int high : 31;
} zoo_bits;

struct zoo_tail {
    uint32_t count;
    uint64_t items[];
};

/* Sum of `count` numbers. */
int64_t zoo_sum(const int32_t *numbers, size_t count);
char *zoo_text(const char *from, const char **error);
void zoo_free(char *text);
const char *zoo_title(zoo_kind kind);
int zoo_each(zoo_visit visit, zoo_filter *filter, void *data);
struct zoo_animal zoo_make(zoo_id id, double weight);
zoo_handle zoo_open(void **slot);
#endif
