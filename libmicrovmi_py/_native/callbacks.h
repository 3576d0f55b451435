/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The boundary between C and Python, read by cffi and by the C compiler alike. Every mvi_py_ function is written in
 * Python (in entry.py and the files beside it in libmicrovmi_py/_capi) and returns 1 for success; 0 is a failure, whose error is then set. `context`
 * is a live token. Out parameters are never NULL. Of a read `ready` bytes are there already; of one at a cursor `position`
 * is where they ended.
 */
int32_t mvi_py_open_uri(uintptr_t context, const char *uri);
int32_t mvi_py_open_params(uintptr_t context, const int32_t *driver_type, const struct DriverInitParamsFFI *params);
/* `driver` may be NULL; `machines` are as large as the first of them says. */
int32_t mvi_py_list_vms(const char *driver, struct microvmi_machine *machines, size_t capacity, size_t *count);
int32_t mvi_py_close(uintptr_t context);
int32_t mvi_py_pause(uintptr_t context);
int32_t mvi_py_resume(uintptr_t context);
int32_t mvi_py_read(uintptr_t context, bool padded, uint64_t address, uint8_t *buffer, size_t size, uint64_t ready,
                    uint64_t *done);
/* A read within one frame, of at least a byte; a failure is the negative number of bytes that were read before it. */
int32_t mvi_py_read_within(uintptr_t context, uint64_t address, uint8_t *buffer, size_t size);
int32_t mvi_py_write(uintptr_t context, uint64_t address, const uint8_t *data, size_t size);
int32_t mvi_py_read_batch(uintptr_t context, struct microvmi_read_request *requests, size_t count);
/* Of those requests whose error is MVI_ASK_PYTHON, what follows the bytes that are there already. */
int32_t mvi_py_read_rest(uintptr_t context, struct microvmi_read_request *requests, size_t count);
int32_t mvi_py_map(uintptr_t context, uint64_t address, size_t size, const uint8_t **pointer);
int32_t mvi_py_unmap(const uint8_t *pointer);
int32_t mvi_py_stream_seek(uintptr_t context, bool padded, int64_t offset, int32_t whence, uint64_t *position);
int32_t mvi_py_stream_read(uintptr_t context, bool padded, uint8_t *buffer, size_t size, uint64_t ready,
                           uint64_t position, uint64_t *done);
int32_t mvi_py_stream_write(uintptr_t context, const uint8_t *data, size_t size, uint64_t *done);
int32_t mvi_py_max_address(uintptr_t context, uint64_t *address);
int32_t mvi_py_memory_map(uintptr_t context, struct microvmi_memory_range *ranges, size_t capacity, size_t *count);
/* The out parameters are set after a failure as well. */
int32_t mvi_py_diff(uintptr_t context, uintptr_t newer, uint64_t *next, struct microvmi_memory_range *ranges,
                    size_t capacity, size_t *count);
int32_t mvi_py_abilities(uintptr_t context, struct microvmi_abilities *abilities);
int32_t mvi_py_vcpu_count(uintptr_t context, uint16_t *count);
int32_t mvi_py_read_registers(uintptr_t context, uint16_t vcpu, struct Registers *registers);
int32_t mvi_py_write_registers(uintptr_t context, uint16_t vcpu, const struct Registers *registers);
/* `states` are as large as the first of them says; at least the first version's size. */
int32_t mvi_py_read_vcpu_states(uintptr_t context, struct microvmi_vcpu_state *states, size_t capacity, size_t *count);
int32_t mvi_py_read_vcpu_state(uintptr_t context, uint16_t vcpu, struct microvmi_vcpu_state *state);
int32_t mvi_py_write_vcpu_state(uintptr_t context, uint16_t vcpu, const struct microvmi_vcpu_state *state);
int32_t mvi_py_get_page_access(uintptr_t context, uint64_t address, uint32_t *access);
int32_t mvi_py_set_page_access(uintptr_t context, uint64_t address, uint32_t access);
int32_t mvi_py_toggle_intercept(uintptr_t context, uint16_t vcpu, const struct microvmi_intercept *intercept,
                                bool enabled);
int32_t mvi_py_listen(uintptr_t context, uint32_t timeout_ms, struct microvmi_event *event);
int32_t mvi_py_reply_event(uintptr_t context, uint64_t id, uint32_t action, const struct Registers *registers);
/* Address spaces are whole, and can be made ready for walks; as are translations, which are filled for what is not mapped
 * as well. */
int32_t mvi_py_get_address_space(uintptr_t context, uint16_t vcpu, struct microvmi_address_space *space);
int32_t mvi_py_get_twin_address_space(uintptr_t context, const struct microvmi_address_space *space,
                                      struct microvmi_address_space *twin);
int32_t mvi_py_translate(uintptr_t context, const struct microvmi_address_space *space, uint64_t address,
                         struct microvmi_translation *translation);
int32_t mvi_py_read_virtual(uintptr_t context, bool padded, const struct microvmi_address_space *space,
                            uint64_t address, uint8_t *buffer, size_t size, uint64_t ready, uint64_t *done);
int32_t mvi_py_write_virtual(uintptr_t context, const struct microvmi_address_space *space, uint64_t address,
                             const uint8_t *data, size_t size);
int32_t mvi_py_read_virtual_batch(uintptr_t context, const struct microvmi_address_space *space,
                                  struct microvmi_read_request *requests, size_t count);
/* Put a snapshot of the machine behind another context, a new one; the options are whole and were checked. */
int32_t mvi_py_snapshot(uintptr_t context, uintptr_t snapshot, const struct microvmi_snapshot_options *options);
int32_t mvi_py_snapshot_info(uintptr_t context, struct microvmi_snapshot_info *info);
/* Write the machine into a file; the options are whole and were checked, and `info` is whole. */
int32_t mvi_py_dump(uintptr_t context, const char *path, const struct microvmi_dump_options *options,
                    struct microvmi_dump_info *info);
/* The struct is whole, and filled but for its size. */
int32_t mvi_py_image_info(uintptr_t context, struct microvmi_image_info *info);
int32_t mvi_py_log(const char *filter);
int32_t mvi_py_exit(void);
int32_t mvi_py_release_all(uint32_t timeout_ms);
