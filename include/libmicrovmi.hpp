/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrovmi for C++, from C++11 on: what has to be given back is given back at the end of its scope, and a call that
 * fails throws. Nothing is added to libmicrovmi.h, which is the manual; its functions take `Machine::get()`.
 *
 *   microvmi::Machine vm = microvmi::Machine::open("vmi:///?vm_name=debian");
 *   vm.pause(); // until `vm` ends
 *   microvmi_address_space space = vm.address_space(0);
 *   char text[64];
 *   vm.read_virtual(space, 0xffffffff82000000, text, sizeof(text));
 *
 * FAILURES. The last parameter of what can fail is a `Failure *`. Without it, a failure is thrown as an `Error`. With
 * it, nothing is thrown: the failure, or its absence, is stored there, and what is returned is false, or empty. In a
 * program without exceptions (-fno-exceptions) there is no `Error`, and a `Failure` has to be given.
 *
 * Classes here can be moved, not copied. A Machine may be used by many threads; the others belong to one thread at a
 * time. One that outlives its Machine fails, and does no harm.
 */
#ifndef LIBMICROVMI_HPP
#define LIBMICROVMI_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <libmicrovmi.h>

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#include <stdexcept>
#define MICROVMI_OR_THROWN = nullptr
#else
#define MICROVMI_OR_THROWN
#endif

namespace microvmi
{

/* Why a call failed; false if it did not. */
struct Failure {
    microvmi_error code = MICROVMI_OK;
    std::string text;

    explicit operator bool() const noexcept
    {
        return code != MICROVMI_OK;
    }
};

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
/* A failure, thrown. */
class Error : public std::runtime_error
{
  public:
    explicit Error(const Failure &failure) : std::runtime_error(failure.text), code(failure.code)
    {
    }

    microvmi_error code;
};
#endif

namespace detail
{

/* Hand on what this thread's last call says of itself; `text` stands for its error where that has one of its own. */
inline bool told(bool good, Failure *failure, const char *text = nullptr)
{
    Failure found;

    if (!good) {
        found.code = microvmi_last_error_code();
        found.text = text != nullptr ? text : microvmi_last_error();
    }
    if (failure != nullptr) {
        *failure = std::move(found);
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
    } else if (!good) {
        throw Error(found);
#endif
    }
    return good;
}

/* The same of a call that gives its error as a text of the caller's. */
inline bool told_by(bool good, const char *error, Failure *failure)
{
    struct Text {
        const char *text;
        ~Text()
        {
            rs_cstring_free(const_cast<char *>(text));
        }
    } owned = {error};

    return told(good, failure, owned.text);
}

} // namespace detail

/* A machine: a context of its own, which is destroyed at the end. */
class Machine
{
  public:
    /* None; to be assigned to. */
    Machine() noexcept = default;

    /* Take over a context of libmicrovmi.h. */
    explicit Machine(void *context) noexcept : context_(context)
    {
    }

    Machine(Machine &&other) noexcept : context_(other.release())
    {
    }

    Machine &operator=(Machine &&other) noexcept
    {
        std::swap(context_, other.context_);
        return *this;
    }

    ~Machine()
    {
        if (context_ != nullptr) {
            microvmi_destroy(context_);
        }
    }

    /* microvmi_open() */
    static Machine open(const std::string &uri, Failure *failure MICROVMI_OR_THROWN)
    {
        const char *error = nullptr;
        void *context = microvmi_open(uri.c_str(), &error);

        detail::told_by(context != nullptr, error, failure);
        return Machine(context);
    }

    explicit operator bool() const noexcept
    {
        return context_ != nullptr;
    }

    /* For the functions of libmicrovmi.h; it stays this object's. */
    void *get() const noexcept
    {
        return context_;
    }

    /* The context is the caller's from now on, and this is none. */
    void *release() noexcept
    {
        void *context = context_;

        context_ = nullptr;
        return context;
    }

    /* The machine stands until resume(), and at the latest until this ends: but for one that stood before. */
    bool pause(Failure *failure MICROVMI_OR_THROWN) const
    {
        return detail::told(microvmi_pause(context_), failure);
    }

    /* Let it run, whoever stopped it. */
    bool resume(Failure *failure MICROVMI_OR_THROWN) const
    {
        return detail::told(microvmi_resume(context_), failure);
    }

    bool read_physical(std::uint64_t address, void *buffer, std::size_t size, Failure *failure MICROVMI_OR_THROWN) const
    {
        return detail::told(
            microvmi_read_physical(context_, address, static_cast<std::uint8_t *>(buffer), size, nullptr), failure);
    }

    bool write_physical(std::uint64_t address, const void *data, std::size_t size,
                        Failure *failure MICROVMI_OR_THROWN) const
    {
        std::uint8_t *bytes = static_cast<std::uint8_t *>(const_cast<void *>(data)); /* which are only read */

        return detail::told(microvmi_write_physical(context_, address, bytes, size), failure);
    }

    bool read_virtual(const microvmi_address_space &space, std::uint64_t address, void *buffer, std::size_t size,
                      Failure *failure MICROVMI_OR_THROWN) const
    {
        return detail::told(
            microvmi_read_virtual(context_, &space, address, static_cast<std::uint8_t *>(buffer), size, nullptr),
            failure);
    }

    /* What is not mapped, or has no physical memory, is zeros. */
    bool read_virtual_padded(const microvmi_address_space &space, std::uint64_t address, void *buffer, std::size_t size,
                             Failure *failure MICROVMI_OR_THROWN) const
    {
        return detail::told(
            microvmi_read_virtual_padded(context_, &space, address, static_cast<std::uint8_t *>(buffer), size, nullptr),
            failure);
    }

    bool write_virtual(const microvmi_address_space &space, std::uint64_t address, const void *data, std::size_t size,
                       Failure *failure MICROVMI_OR_THROWN) const
    {
        return detail::told(
            microvmi_write_virtual(context_, &space, address, static_cast<const std::uint8_t *>(data), size), failure);
    }

    /* The address space that a vCPU works in now. */
    microvmi_address_space address_space(std::uint16_t vcpu, Failure *failure MICROVMI_OR_THROWN) const
    {
        microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;

        detail::told(microvmi_get_address_space(context_, vcpu, &space), failure);
        return space;
    }

    Registers registers(std::uint16_t vcpu, Failure *failure MICROVMI_OR_THROWN) const
    {
        Registers registers = Registers();

        detail::told(microvmi_read_registers(context_, vcpu, &registers), failure);
        return registers;
    }

    std::uint16_t vcpu_count(Failure *failure MICROVMI_OR_THROWN) const
    {
        std::uint16_t count = 0;

        detail::told(microvmi_get_vcpu_count(context_, &count), failure);
        return count;
    }

    std::vector<microvmi_memory_range> memory_map(Failure *failure MICROVMI_OR_THROWN) const
    {
        std::vector<microvmi_memory_range> ranges;
        std::size_t count = 0;
        bool good = microvmi_get_memory_map(context_, nullptr, 0, &count);

        while (good && count != ranges.size()) { /* it may have changed meanwhile */
            ranges.resize(count);
            good = microvmi_get_memory_map(context_, ranges.data(), ranges.size(), &count);
        }
        if (!detail::told(good, failure)) {
            ranges.clear();
        }
        return ranges;
    }

    /* microvmi_snapshot(): a machine of its own. */
    Machine snapshot(const microvmi_snapshot_options &options, Failure *failure MICROVMI_OR_THROWN) const
    {
        const char *error = nullptr;
        void *context = microvmi_snapshot(context_, &options, &error);

        detail::told_by(context != nullptr, error, failure);
        return Machine(context);
    }

  private:
    void *context_ = nullptr;
};

/* Guest memory where the library has it, as long as this is there: microvmi_map_physical(). */
class Mapping
{
  public:
    Mapping(const Machine &machine, std::uint64_t address, std::size_t size, Failure *failure MICROVMI_OR_THROWN)
    {
        if (detail::told(microvmi_map_physical(machine.get(), address, size, &pointer_), failure)) {
            size_ = size;
        }
    }

    Mapping(Mapping &&other) noexcept : pointer_(other.pointer_), size_(other.size_)
    {
        other.pointer_ = nullptr;
        other.size_ = 0;
    }

    Mapping &operator=(Mapping &&) = delete;

    ~Mapping()
    {
        if (pointer_ != nullptr) {
            microvmi_unmap_physical(pointer_);
        }
    }

    const std::uint8_t *data() const noexcept
    {
        return pointer_;
    }

    std::size_t size() const noexcept
    {
        return size_;
    }

  private:
    const std::uint8_t *pointer_ = nullptr;
    std::size_t size_ = 0;
};

/* What vCPUs are stopped at as long as this is there. Start from MICROVMI_INTERCEPT_INIT. */
class Intercept
{
  public:
    Intercept(const Machine &machine, const microvmi_intercept &what, Failure *failure MICROVMI_OR_THROWN)
        : Intercept(machine, MICROVMI_ALL_VCPUS, what, failure)
    {
    }

    Intercept(const Machine &machine, std::uint16_t vcpu, const microvmi_intercept &what,
              Failure *failure MICROVMI_OR_THROWN)
        : context_(machine.get()), what_(what), vcpu_(vcpu)
    {
        if (!detail::told(microvmi_toggle_intercept(context_, vcpu_, &what_, true), failure)) {
            context_ = nullptr;
        }
    }

    Intercept(Intercept &&other) noexcept : context_(other.context_), what_(other.what_), vcpu_(other.vcpu_)
    {
        other.context_ = nullptr;
    }

    Intercept &operator=(Intercept &&) = delete;

    ~Intercept()
    {
        if (context_ != nullptr) {
            microvmi_toggle_intercept(context_, vcpu_, &what_, false);
        }
    }

  private:
    void *context_;
    microvmi_intercept what_;
    std::uint16_t vcpu_;
};

/* Something that the guest did. What stands by it goes on when it is answered, at the latest when this ends. */
class Event
{
  public:
    /* Wait for the next one, up to `timeout_ms` milliseconds. Where none came in time that is a failure as well. */
    Event(const Machine &machine, std::uint32_t timeout_ms, Failure *failure MICROVMI_OR_THROWN)
        : context_(machine.get())
    {
        if (!detail::told(microvmi_listen(context_, timeout_ms, &event_), failure) ||
            event_.stands == MICROVMI_STANDS_NOTHING) {
            context_ = nullptr;
        }
    }

    Event(Event &&other) noexcept : context_(other.context_), event_(other.event_)
    {
        other.context_ = nullptr;
    }

    Event &operator=(Event &&) = delete;

    ~Event()
    {
        if (context_ != nullptr) {
            microvmi_reply_event(context_, &event_, nullptr);
        }
    }

    const microvmi_event *operator->() const noexcept
    {
        return &event_;
    }

    /* Answer it. An action that it does not have is a failure, and leaves it open. */
    bool reply(const microvmi_reply &reply, Failure *failure MICROVMI_OR_THROWN)
    {
        bool good = detail::told(microvmi_reply_event(context_, &event_, &reply), failure);

        if (good) {
            context_ = nullptr;
        }
        return good;
    }

  private:
    void *context_;
    microvmi_event event_ = MICROVMI_EVENT_INIT;
};

} // namespace microvmi

#undef MICROVMI_OR_THROWN

#endif /* LIBMICROVMI_HPP */
