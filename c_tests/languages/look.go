// SPDX-License-Identifier: Apache-2.0
// look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
package main

/*
#cgo LDFLAGS: -lmicrovmi
#include <libmicrovmi.h>
#include <stdlib.h>

// cgo has no members of a union.
static uint64_t rip_of(const Registers *registers) { return registers->x86.rip; }
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"unsafe"
)

// What a call says by its result, and its thread's error right behind it.
func check(good C.bool) error {
	if good {
		return nil
	}
	return errors.New(C.GoString(C.microvmi_last_error()))
}

func open(target string) (unsafe.Pointer, error) {
	uri := C.CString(target)
	defer C.free(unsafe.Pointer(uri))
	var text *C.char
	vm := C.microvmi_open(uri, &text)
	if vm == nil {
		defer C.rs_cstring_free(text)
		return nil, errors.New(C.GoString(text))
	}
	return vm, nil
}

func printText(vm unsafe.Pointer, address C.uint64_t) error {
	var space C.struct_microvmi_address_space
	space.struct_size = C.uint32_t(unsafe.Sizeof(space))
	if err := check(C.microvmi_get_address_space(vm, 0, &space)); err != nil {
		return err
	}
	text := make([]byte, 256)
	place := (*C.uint8_t)(&text[0])
	if err := check(C.microvmi_read_virtual_padded(vm, &space, address, place, C.size_t(len(text)), nil)); err != nil {
		return err
	}
	if end := bytes.IndexAny(text, "\n\x00"); end >= 0 {
		text = text[:end]
	}
	fmt.Println(string(text))
	return nil
}

func printBreakpoint(vm unsafe.Pointer, address C.uint64_t) error {
	var code C.struct_microvmi_intercept
	code.struct_size = C.uint32_t(unsafe.Sizeof(code))
	code.kind = C.MICROVMI_EVENT_BREAKPOINT
	code.address = address
	var event C.struct_microvmi_event
	event.struct_size = C.uint32_t(unsafe.Sizeof(event))
	if err := check(C.microvmi_resume(vm)); err != nil {
		return err
	}
	if err := check(C.microvmi_toggle_intercept(vm, C.MICROVMI_ALL_VCPUS, &code, true)); err != nil {
		return err
	}
	if err := check(C.microvmi_listen(vm, 60000, &event)); err != nil {
		return err
	}
	fmt.Printf("breakpoint %#x\n", uint64(event.instruction_pointer))
	return check(C.microvmi_reply_event(vm, &event, nil))
}

// An address: 0x and no more hexadecimal digits than 64 bits have.
func address(text string) (C.uint64_t, error) {
	if !regexp.MustCompile(`^0x[0-9a-fA-F]{1,16}$`).MatchString(text) {
		return 0, fmt.Errorf("look: %s: not an address, which is 0x and up to 16 hexadecimal digits", text)
	}
	value, err := strconv.ParseUint(text[2:], 16, 64)
	return C.uint64_t(value), err
}

func addressesOf(arguments []string) ([]C.uint64_t, error) {
	if len(arguments) < 3 || len(arguments) > 4 {
		return nil, errors.New("usage: look TARGET PHYSICAL VIRTUAL [CODE]")
	}
	var addresses []C.uint64_t
	for _, text := range arguments[1:] {
		value, err := address(text)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, value)
	}
	return addresses, nil
}

func look(target string, addresses []C.uint64_t) error {
	vm, err := open(target)
	if err != nil {
		return err
	}
	defer C.microvmi_destroy(vm)
	if err := check(C.microvmi_pause(vm)); err != nil {
		return err
	}
	var page [16]byte
	if err := check(C.microvmi_read_physical(vm, addresses[0], (*C.uint8_t)(&page[0]), 16, nil)); err != nil {
		return err
	}
	fmt.Printf("% x\n", page)
	if err := printText(vm, addresses[1]); err != nil {
		return err
	}
	var registers C.Registers
	if err := check(C.microvmi_read_registers(vm, 0, &registers)); err != nil {
		return err
	}
	if registers.tag == C.X86 {
		fmt.Printf("rip %#x\n", uint64(C.rip_of(&registers)))
	}
	if len(addresses) > 2 {
		return printBreakpoint(vm, addresses[2])
	}
	return nil
}

func end(status int, reason error) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(status)
}

func main() {
	// An error belongs to its thread: stay on one between a call and microvmi_last_error.
	runtime.LockOSThread()
	addresses, err := addressesOf(os.Args[1:])
	if err != nil {
		end(2, err)
	}
	if err := look(os.Args[1], addresses); err != nil {
		end(1, err)
	}
}
