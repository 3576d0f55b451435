/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions about page accesses and events; see entry.c. */
#include "entry.h"

/* What the first version of each struct that may grow held: nobody's is smaller. */
#define MVI_INTERCEPT_SIZE 24u
#define MVI_EVENT_SIZE 64u
#define MVI_REPLY_SIZE 16u

_Static_assert(sizeof(struct microvmi_intercept) == MVI_INTERCEPT_SIZE, "grown: see mvi_need_struct()");
_Static_assert(sizeof(struct microvmi_event) == MVI_EVENT_SIZE, "grown: see mvi_need_struct()");
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
    return mvi_enter(context) &&
           mvi_need_struct(intercept != NULL ? &intercept->struct_size : NULL, MVI_INTERCEPT_SIZE, "intercept",
                           "MICROVMI_INTERCEPT_INIT") &&
           mvi_leave(mvi_py_toggle_intercept((uintptr_t)context, vcpu, intercept, enabled));
}

bool microvmi_listen(void *context, uint32_t timeout_ms, struct microvmi_event *event)
{
    return mvi_enter(context) &&
           mvi_need_struct(event != NULL ? &event->struct_size : NULL, MVI_EVENT_SIZE, "event",
                           "MICROVMI_EVENT_INIT") &&
           mvi_leave(mvi_py_listen((uintptr_t)context, timeout_ms, event));
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
