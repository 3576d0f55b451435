/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions about page accesses and events; see entry.c. */
#include "entry.h"

#include <string.h>

/* What the first version of each struct that may grow held: nobody's is smaller. */
#define MVI_INTERCEPT_SIZE 24u
#define MVI_EVENT_SIZE 64u
#define MVI_REPLY_SIZE 16u

_Static_assert(offsetof(struct microvmi_intercept, size) == MVI_INTERCEPT_SIZE, "it grows at its end only");
_Static_assert(offsetof(struct microvmi_event, instruction_pointer) == MVI_EVENT_SIZE, "it grows at its end only");
_Static_assert(sizeof(struct microvmi_reply) == MVI_REPLY_SIZE, "grown: see mvi_need_struct()");

bool microvmi_get_page_access(void *context, uint64_t physical_address, uint32_t *access)
{
    return mvi_enter(context) && mvi_need(access, "access") &&
           mvi_leave(mvi_py_get_page_access((uintptr_t)context, physical_address, access));
}

bool microvmi_set_page_access(void *context, uint64_t physical_address, uint32_t access)
{
    return mvi_enter(context) && mvi_leave(mvi_py_set_page_access((uintptr_t)context, physical_address, access));
}

bool microvmi_toggle_intercept(void *context, uint16_t vcpu, const struct microvmi_intercept *intercept, bool enabled)
{
    struct microvmi_intercept taken = MICROVMI_INTERCEPT_INIT; /* of which the caller may know less, or more */

    if (!mvi_enter(context) || !mvi_need_struct(intercept != NULL ? &intercept->struct_size : NULL, MVI_INTERCEPT_SIZE,
                                                "intercept", "MICROVMI_INTERCEPT_INIT"))
        return false;
    if (intercept != NULL) /* which the analyzer does not see from here */
        memcpy(&taken, intercept, mvi_smaller(intercept->struct_size, sizeof taken));
    return mvi_leave(mvi_py_toggle_intercept((uintptr_t)context, vcpu, &taken, enabled));
}

bool microvmi_listen(void *context, uint32_t timeout_ms, struct microvmi_event *event)
{
    struct microvmi_event told = MICROVMI_EVENT_INIT;

    if (!mvi_enter(context) ||
        !mvi_need_struct(event != NULL ? &event->struct_size : NULL, MVI_EVENT_SIZE, "event", "MICROVMI_EVENT_INIT") ||
        !mvi_leave(mvi_py_listen((uintptr_t)context, timeout_ms, &told)))
        return false;
    mvi_hand_out(event, &told, sizeof told);
    return true;
}

bool microvmi_reply_event(void *context, const struct microvmi_event *event, const struct microvmi_reply *reply)
{
    static const struct microvmi_reply usual = MICROVMI_REPLY_INIT;
    uint64_t id = event != NULL ? event->id : 0;

    if (reply == NULL)
        reply = &usual;
    return mvi_enter(context) &&
           mvi_need_struct(event != NULL ? &event->struct_size : NULL, MVI_EVENT_SIZE, "event",
                           "MICROVMI_EVENT_INIT") &&
           mvi_need_struct(&reply->struct_size, MVI_REPLY_SIZE, "reply", "MICROVMI_REPLY_INIT") &&
           mvi_leave(mvi_py_reply_event((uintptr_t)context, id, reply->action, reply->registers));
}
