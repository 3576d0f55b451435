/* SPDX-License-Identifier: Apache-2.0 */
/* Making what a thread remembers, and forgetting it; see translations.h. */
#include "sparse.h"
#include "words.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_key_t mvi_translations_key_of_thread;
static bool mvi_translations_has_key; /* without it nobody could free them when the thread ends */
static pthread_once_t mvi_translations_once = PTHREAD_ONCE_INIT;

static void mvi_translations_leave(void *translations)
{
    mvi_thread.translations = NULL; /* a destructor of the host's may still call, and then makes new ones */
    free(translations);
}

static void mvi_translations_set_up(void)
{
    mvi_translations_has_key = pthread_key_create(&mvi_translations_key_of_thread, mvi_translations_leave) == 0;
}

__attribute__((noinline)) struct mvi_translations *mvi_translations_make(void)
{
    struct mvi_translations *own;

    pthread_once(&mvi_translations_once, mvi_translations_set_up);
    own = mvi_translations_has_key ? calloc(1, sizeof *own) : NULL;
    if (own != NULL && pthread_setspecific(mvi_translations_key_of_thread, own) != 0) {
        free(own);
        own = NULL;
    }
    if (own != NULL)
        own->view = own->views;
    mvi_thread.translations = own;
    return own;
}

__attribute__((noinline)) struct mvi_view *
mvi_view_change(struct mvi_translations *own, const struct microvmi_address_space *given, const char **wrong)
{
    struct mvi_space space;
    struct mvi_view *view;
    size_t index;

    for (index = 0; index < MVI_VIEWS; index++)
        if (mvi_same_space(&own->views[index].space.given, given))
            return own->view = &own->views[index];
    *wrong = mvi_space_prepare(&space, given);
    if (*wrong != NULL)
        return NULL;
    view = &own->views[own->next_view];
    if (own->near.view == view)
        mvi_near_forget(own); /* words are read by a view, whose space this was */
    own->next_view = (own->next_view + 1) % MVI_VIEWS;
    *view = (struct mvi_view){.space = space};
    return own->view = view;
}

/* A key is used once; when there are none left all is forgotten. */
__attribute__((noinline)) void mvi_view_renew(struct mvi_translations *own, struct mvi_view *view, uint64_t edition,
                                              uint64_t flushes)
{
    size_t index;

    if (++own->last_key == MVI_KEYS) {
        for (index = 0; index < MVI_VIEWS; index++)
            own->views[index].key = 0;
        memset(own->kept, 0, sizeof own->kept);
        memset(own->paths, 0, sizeof own->paths);
        mvi_near_forget(own);
        own->last_key = 1;
    }
    view->edition = edition;
    view->flushes = flushes;
    view->key = own->last_key;
}

__attribute__((noinline)) const uint8_t *mvi_word_elsewhere(const struct mvi_table *table, uint64_t address,
                                                            struct mvi_word *word)
{
    const uint8_t *bytes = mvi_table_hit(table, mvi_thread.last_hit, address, 8);
    size_t index = bytes != NULL ? mvi_thread.last_hit : mvi_search(table, address);

    if (index < table->count && address - table->words[index].start < table->words[index].span)
        *word = table->words[index];
    return bytes != NULL ? bytes : mvi_table_hit(table, index, address, 8);
}
