// SPDX-License-Identifier: Apache-2.0
// LookFfm TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next; by
// Java's own foreign function and memory API, from Java 22 on.

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BOOLEAN;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;
import java.util.HexFormat;

public class LookFfm {
    // Structs by the places of what is used of them, in bytes.
    static final int SPACE_SIZE = 40, INTERCEPT_SIZE = 40, EVENT_SIZE = 88, REGISTERS_SIZE = 408;
    static final int KIND = 4, INTERCEPT_ADDRESS = 16, INSTRUCTION_POINTER = 64, RIP = 8 + 16 * 8;
    static final int X86 = 0, BREAKPOINT = 3;
    static final short ALL_VCPUS = (short) 0xffff;

    static final Linker LINKER = Linker.nativeLinker();
    static final SymbolLookup LIBRARY = SymbolLookup.libraryLookup("libmicrovmi.so", Arena.global());

    static final MethodHandle OPEN = function("microvmi_open", ADDRESS, ADDRESS, ADDRESS);
    static final MethodHandle PAUSE = function("microvmi_pause", JAVA_BOOLEAN, ADDRESS);
    static final MethodHandle RESUME = function("microvmi_resume", JAVA_BOOLEAN, ADDRESS);
    static final MethodHandle READ_PHYSICAL =
            function("microvmi_read_physical", JAVA_BOOLEAN, ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG, ADDRESS);
    static final MethodHandle GET_ADDRESS_SPACE =
            function("microvmi_get_address_space", JAVA_BOOLEAN, ADDRESS, JAVA_SHORT, ADDRESS);
    static final MethodHandle READ_VIRTUAL_PADDED = function(
            "microvmi_read_virtual_padded", JAVA_BOOLEAN, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG, ADDRESS);
    static final MethodHandle READ_REGISTERS =
            function("microvmi_read_registers", JAVA_BOOLEAN, ADDRESS, JAVA_SHORT, ADDRESS);
    static final MethodHandle TOGGLE_INTERCEPT =
            function("microvmi_toggle_intercept", JAVA_BOOLEAN, ADDRESS, JAVA_SHORT, ADDRESS, JAVA_BOOLEAN);
    static final MethodHandle LISTEN = function("microvmi_listen", JAVA_BOOLEAN, ADDRESS, JAVA_INT, ADDRESS);
    static final MethodHandle REPLY_EVENT = function("microvmi_reply_event", JAVA_BOOLEAN, ADDRESS, ADDRESS, ADDRESS);
    static final MethodHandle LAST_ERROR = function("microvmi_last_error", ADDRESS);
    static final MethodHandle DESTROY = procedure("microvmi_destroy", ADDRESS);
    static final MethodHandle CSTRING_FREE = procedure("rs_cstring_free", ADDRESS);

    static MethodHandle function(String name, MemoryLayout result, MemoryLayout... parameters) {
        return LINKER.downcallHandle(LIBRARY.find(name).orElseThrow(), FunctionDescriptor.of(result, parameters));
    }

    static MethodHandle procedure(String name, MemoryLayout... parameters) {
        return LINKER.downcallHandle(LIBRARY.find(name).orElseThrow(), FunctionDescriptor.ofVoid(parameters));
    }

    static class Failure extends Exception {
        Failure(String text) {
            super(text);
        }
    }

    /** A text of the library's. */
    static String text(MemorySegment pointer) {
        return pointer.reinterpret(Long.MAX_VALUE).getString(0);
    }

    /** What a call says by its result, and its thread's error right behind it. */
    static void check(boolean good) throws Throwable {
        if (!good) {
            throw new Failure(text((MemorySegment) LAST_ERROR.invokeExact()));
        }
    }

    static MemorySegment open(Arena arena, String target) throws Throwable {
        MemorySegment error = arena.allocate(ADDRESS);
        MemorySegment vm = (MemorySegment) OPEN.invokeExact(arena.allocateFrom(target), error);
        if (vm.address() != 0) {
            return vm;
        }
        MemorySegment pointer = error.get(ADDRESS, 0);
        String reason = text(pointer);
        CSTRING_FREE.invokeExact(pointer);
        throw new Failure(reason);
    }

    /** A struct that is all zeros but its size. */
    static MemorySegment sized(Arena arena, int size) {
        MemorySegment made = arena.allocate(size, 8);
        made.set(JAVA_INT, 0, size);
        return made;
    }

    static String textAt(Arena arena, MemorySegment vm, long address) throws Throwable {
        MemorySegment space = sized(arena, SPACE_SIZE), text = arena.allocate(257);
        check((boolean) GET_ADDRESS_SPACE.invokeExact(vm, (short) 0, space));
        check((boolean) READ_VIRTUAL_PADDED.invokeExact(vm, space, address, text, 256L, MemorySegment.NULL));
        return text.getString(0).split("\n", 2)[0];
    }

    static long waitFor(Arena arena, MemorySegment vm, long address) throws Throwable {
        MemorySegment code = sized(arena, INTERCEPT_SIZE), event = sized(arena, EVENT_SIZE);
        code.set(JAVA_INT, KIND, BREAKPOINT);
        code.set(JAVA_LONG, INTERCEPT_ADDRESS, address);
        check((boolean) RESUME.invokeExact(vm));
        check((boolean) TOGGLE_INTERCEPT.invokeExact(vm, ALL_VCPUS, code, true));
        check((boolean) LISTEN.invokeExact(vm, 60000, event));
        check((boolean) REPLY_EVENT.invokeExact(vm, event, MemorySegment.NULL));
        return event.get(JAVA_LONG, INSTRUCTION_POINTER);
    }

    static void look(Arena arena, MemorySegment vm, long[] addresses) throws Throwable {
        check((boolean) PAUSE.invokeExact(vm));
        MemorySegment bytes = arena.allocate(16);
        check((boolean) READ_PHYSICAL.invokeExact(vm, addresses[0], bytes, 16L, MemorySegment.NULL));
        System.out.println(HexFormat.ofDelimiter(" ").formatHex(bytes.toArray(JAVA_BYTE)));
        System.out.println(textAt(arena, vm, addresses[1]));
        MemorySegment registers = arena.allocate(REGISTERS_SIZE, 8);
        check((boolean) READ_REGISTERS.invokeExact(vm, (short) 0, registers));
        if (registers.get(JAVA_INT, 0) == X86) {
            System.out.printf("rip %#x%n", registers.get(JAVA_LONG, RIP));
        }
        if (addresses.length > 2) {
            System.out.printf("breakpoint %#x%n", waitFor(arena, vm, addresses[2]));
        }
    }

    /** End the program, which has no machine yet. */
    static void misused(String line) {
        System.err.println(line);
        System.exit(2);
    }

    /** 0x and no more hexadecimal digits than 64 bits have. Java has no unsigned long; the bits are the same. */
    static long address(String text) {
        if (!text.matches("0x[0-9a-fA-F]{1,16}")) {
            misused("look: " + text + ": not an address, which is 0x and up to 16 hexadecimal digits");
        }
        return Long.parseUnsignedLong(text.substring(2), 16);
    }

    static long[] addresses(String[] arguments) {
        if (arguments.length < 3 || arguments.length > 4) {
            misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]");
        }
        return Arrays.stream(arguments).skip(1).mapToLong(LookFfm::address).toArray();
    }

    public static void main(String[] arguments) throws Throwable {
        long[] addresses = addresses(arguments);
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment vm = open(arena, arguments[0]);
            try {
                look(arena, vm, addresses);
            } finally {
                DESTROY.invokeExact(vm);
            }
        } catch (Failure failure) {
            System.err.println(failure.getMessage());
            System.exit(1);
        }
    }
}
