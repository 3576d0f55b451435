/* SPDX-License-Identifier: Apache-2.0 */
#include "zoo.h"
#include <stdlib.h>
#include <string.h>
struct zoo_cage { int number; };
static struct zoo_cage cage = {7};
int64_t zoo_sum(const int32_t *numbers, size_t count)
{
    int64_t sum = 0;
    while (count--)
        sum += numbers[count];
    return sum;
}
char *zoo_text(const char *from, const char **error)
{
    if (error)
        *error = from ? NULL : strdup("no text");
    return from ? strdup(from) : NULL;
}
void zoo_free(char *text) { free(text); }
const char *zoo_title(zoo_kind kind) { return kind == ZOO_CAT ? "cat" : NULL; }
struct zoo_animal zoo_make(zoo_id id, double weight)
{
    struct zoo_animal animal = {0};
    animal.id = id;
    strcpy(animal.name, "Tom");
    animal.body.weight = weight;
    animal.body.marks[1][2].b = 9;
    animal.high = 1;
    animal.sign = ZOO_MINUS;
    return animal;
}
int zoo_each(zoo_visit visit, zoo_filter *filter, void *data)
{
    int sum = 0;
    for (zoo_id id = 0; id < 4; id++) {
        struct zoo_animal animal = zoo_make(id, 1);
        if (filter(id))
            sum += visit(&animal, "visitor", data);
    }
    return sum;
}
zoo_handle zoo_open(void **slot)
{
    *slot = &cage;
    return &cage;
}
