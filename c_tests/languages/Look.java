// SPDX-License-Identifier: Apache-2.0
// Look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next; by JNA.

import com.sun.jna.IntegerType;
import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.Structure.FieldOrder;
import com.sun.jna.ptr.PointerByReference;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;

public class Look {
    static final int X86 = 0, RIP = 16, BREAKPOINT = 3;
    static final short ALL_VCPUS = (short) 0xffff;

    /** The functions; JNA's `boolean` is an int of C, which a `bool` is not: it is a byte. */
    public interface Microvmi extends Library {
        Pointer microvmi_open(String uri, PointerByReference error);
        void microvmi_destroy(Pointer vm);
        byte microvmi_pause(Pointer vm);
        byte microvmi_resume(Pointer vm);
        byte microvmi_read_physical(Pointer vm, long address, byte[] buffer, NativeSize size, Pointer read);
        byte microvmi_get_address_space(Pointer vm, short vcpu, AddressSpace space);
        byte microvmi_read_virtual_padded(
                Pointer vm, AddressSpace space, long address, byte[] buffer, NativeSize size, Pointer read);
        byte microvmi_read_registers(Pointer vm, short vcpu, Registers registers);
        byte microvmi_toggle_intercept(Pointer vm, short vcpu, Intercept intercept, byte enabled);
        byte microvmi_listen(Pointer vm, int timeoutMs, Event event);
        byte microvmi_reply_event(Pointer vm, Event event, Pointer reply);
        String microvmi_last_error();
        void rs_cstring_free(Pointer text);
    }

    /** C's `size_t`. */
    public static class NativeSize extends IntegerType {
        private static final long serialVersionUID = 1;

        public NativeSize() { this(0); }
        public NativeSize(long value) { super(Native.SIZE_T_SIZE, value, true); }
    }

    @FieldOrder({"structSize", "paging", "base", "upperBase", "control", "physicalBits", "reserved"})
    public static class AddressSpace extends Structure {
        public int structSize = size(), paging;
        public long base, upperBase, control;
        public int physicalBits, reserved;
    }

    @FieldOrder({"structSize", "kind", "number", "flags", "address", "size", "access", "reserved"})
    public static class Intercept extends Structure {
        public int structSize = size(), kind, number, flags;
        public long address, size;
        public int access, reserved;
    }

    @FieldOrder({"structSize", "kind", "id", "vcpu", "number", "oldValue", "newValue", "physicalAddress",
        "virtualAddress", "access", "instructionLength", "instructionPointer", "stands", "reserved", "lost"})
    public static class Event extends Structure {
        public int structSize = size(), kind;
        public long id;
        public int vcpu, number;
        public long oldValue, newValue, physicalAddress, virtualAddress;
        public int access, instructionLength;
        public long instructionPointer;
        public int stands, reserved;
        public long lost;
    }

    /** A tag, and room for 400 bytes, which on x86 begin with 30 registers. */
    @FieldOrder({"tag", "values"})
    public static class Registers extends Structure {
        public int tag;
        public long[] values = new long[50];
    }

    /** A machine, for a try that closes it. */
    static class Machine implements AutoCloseable {
        static final Microvmi LIBRARY = Native.load(
                "microvmi", Microvmi.class, Map.of(Library.OPTION_STRING_ENCODING, "UTF-8"));
        final Pointer vm;

        Machine(String target) {
            PointerByReference error = new PointerByReference();
            vm = LIBRARY.microvmi_open(target, error);
            if (vm == null) {
                String text = error.getValue().getString(0, "UTF-8");
                LIBRARY.rs_cstring_free(error.getValue());
                throw new IllegalStateException(text);
            }
        }

        /** What a call says by its result, and its thread's error right behind it. */
        static void check(byte good) {
            if (good == 0) {
                throw new IllegalStateException(LIBRARY.microvmi_last_error());
            }
        }

        byte[] bytes(long address) {
            byte[] bytes = new byte[16];
            check(LIBRARY.microvmi_read_physical(vm, address, bytes, new NativeSize(bytes.length), null));
            return bytes;
        }

        String text(long address) {
            AddressSpace space = new AddressSpace();
            byte[] text = new byte[256];
            check(LIBRARY.microvmi_get_address_space(vm, (short) 0, space));
            check(LIBRARY.microvmi_read_virtual_padded(vm, space, address, text, new NativeSize(text.length), null));
            return new String(text, StandardCharsets.UTF_8).split("[\n\0]", 2)[0];
        }

        long waitFor(long address) {
            Intercept code = new Intercept();
            code.kind = BREAKPOINT;
            code.address = address;
            Event event = new Event();
            check(LIBRARY.microvmi_resume(vm));
            check(LIBRARY.microvmi_toggle_intercept(vm, ALL_VCPUS, code, (byte) 1));
            check(LIBRARY.microvmi_listen(vm, 60000, event));
            check(LIBRARY.microvmi_reply_event(vm, event, null));
            return event.instructionPointer;
        }

        @Override
        public void close() {
            LIBRARY.microvmi_destroy(vm);
        }
    }

    static void look(String target, long[] addresses) {
        try (Machine machine = new Machine(target)) {
            Machine.check(Machine.LIBRARY.microvmi_pause(machine.vm));
            StringBuilder bytes = new StringBuilder();
            for (byte each : machine.bytes(addresses[0])) {
                bytes.append(String.format(" %02x", each));
            }
            System.out.println(bytes.substring(1));
            System.out.println(machine.text(addresses[1]));
            Registers registers = new Registers();
            Machine.check(Machine.LIBRARY.microvmi_read_registers(machine.vm, (short) 0, registers));
            if (registers.tag == X86) {
                System.out.printf("rip %#x%n", registers.values[RIP]);
            }
            if (addresses.length > 2) {
                System.out.printf("breakpoint %#x%n", machine.waitFor(addresses[2]));
            }
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
        return Arrays.stream(arguments).skip(1).mapToLong(Look::address).toArray();
    }

    public static void main(String[] arguments) {
        long[] addresses = addresses(arguments);
        try {
            look(arguments[0], addresses);
        } catch (IllegalStateException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }
}
