// SPDX-License-Identifier: Apache-2.0
// Look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
using System;
using System.Globalization;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

[StructLayout(LayoutKind.Sequential)]
struct AddressSpace
{
    public uint StructSize, Paging;
    public ulong Base, UpperBase, Control;
    public uint PhysicalBits, Reserved;
}

[StructLayout(LayoutKind.Sequential)]
struct Intercept
{
    public uint StructSize, Kind, Number, Flags;
    public ulong Address, Size;
    public uint Access, Reserved;
}

[StructLayout(LayoutKind.Sequential)]
struct Event
{
    public uint StructSize, Kind;
    public ulong Id;
    public uint Vcpu, Number;
    public ulong OldValue, NewValue, PhysicalAddress, VirtualAddress;
    public uint Access, InstructionLength;
    public ulong InstructionPointer;
    public uint Stands, Reserved;
    public ulong Lost;
}

// A tag, and room for 400 bytes, which on x86 begin with 30 registers; RIP is number 16.
[StructLayout(LayoutKind.Sequential)]
struct Registers
{
    public uint Tag;
    [MarshalAs(UnmanagedType.ByValArray, SizeConst = 50)]
    public ulong[] Values;
}

// The functions; `bool` of C is a byte, of .NET an int.
static class Microvmi
{
    const string Library = "libmicrovmi.so";
    public const uint X86 = 0, Breakpoint = 3;
    public const int Rip = 16;
    public const ushort AllVcpus = 0xffff;

    [DllImport(Library)] public static extern IntPtr microvmi_open(byte[] uri, out IntPtr error);
    [DllImport(Library)] public static extern void microvmi_destroy(IntPtr vm);
    [DllImport(Library)] public static extern byte microvmi_pause(IntPtr vm);
    [DllImport(Library)] public static extern byte microvmi_resume(IntPtr vm);
    [DllImport(Library)]
    public static extern byte microvmi_read_physical(IntPtr vm, ulong address, byte[] buffer, UIntPtr size, IntPtr read);
    [DllImport(Library)]
    public static extern byte microvmi_get_address_space(IntPtr vm, ushort vcpu, ref AddressSpace space);
    [DllImport(Library)]
    public static extern byte microvmi_read_virtual_padded(
        IntPtr vm, ref AddressSpace space, ulong address, byte[] buffer, UIntPtr size, IntPtr read);
    [DllImport(Library)]
    public static extern byte microvmi_read_registers(IntPtr vm, ushort vcpu, out Registers registers);
    [DllImport(Library)]
    public static extern byte microvmi_toggle_intercept(IntPtr vm, ushort vcpu, ref Intercept wanted, byte enabled);
    [DllImport(Library)] public static extern byte microvmi_listen(IntPtr vm, uint timeoutMs, ref Event found);
    [DllImport(Library)] public static extern byte microvmi_reply_event(IntPtr vm, ref Event found, IntPtr reply);
    [DllImport(Library)] public static extern IntPtr microvmi_last_error();
    [DllImport(Library)] public static extern void rs_cstring_free(IntPtr text);
}

sealed class Machine : IDisposable
{
    public readonly IntPtr Vm;

    public Machine(string target)
    {
        IntPtr error;
        Vm = Microvmi.microvmi_open(Encoding.UTF8.GetBytes(target + "\0"), out error);
        if (Vm == IntPtr.Zero)
        {
            string text = Marshal.PtrToStringAnsi(error);
            Microvmi.rs_cstring_free(error);
            throw new InvalidOperationException(text);
        }
    }

    // What a call says by its result, and its thread's error right behind it.
    public static void Check(byte good)
    {
        if (good == 0)
            throw new InvalidOperationException(Marshal.PtrToStringAnsi(Microvmi.microvmi_last_error()));
    }

    public string Bytes(ulong address)
    {
        var bytes = new byte[16];
        Check(Microvmi.microvmi_read_physical(Vm, address, bytes, (UIntPtr)bytes.Length, IntPtr.Zero));
        return BitConverter.ToString(bytes).Replace('-', ' ').ToLowerInvariant();
    }

    public string Text(ulong address)
    {
        var space = new AddressSpace { StructSize = (uint)Marshal.SizeOf(typeof(AddressSpace)) };
        var text = new byte[256];
        Check(Microvmi.microvmi_get_address_space(Vm, 0, ref space));
        Check(Microvmi.microvmi_read_virtual_padded(
            Vm, ref space, address, text, (UIntPtr)text.Length, IntPtr.Zero));
        return Encoding.UTF8.GetString(text).Split('\n', '\0')[0];
    }

    public ulong WaitFor(ulong address)
    {
        var code = new Intercept { StructSize = (uint)Marshal.SizeOf(typeof(Intercept)) };
        code.Kind = Microvmi.Breakpoint;
        code.Address = address;
        var found = new Event { StructSize = (uint)Marshal.SizeOf(typeof(Event)) };
        Check(Microvmi.microvmi_resume(Vm));
        Check(Microvmi.microvmi_toggle_intercept(Vm, Microvmi.AllVcpus, ref code, 1));
        Check(Microvmi.microvmi_listen(Vm, 60000, ref found));
        Check(Microvmi.microvmi_reply_event(Vm, ref found, IntPtr.Zero));
        return found.InstructionPointer;
    }

    public void Dispose()
    {
        Microvmi.microvmi_destroy(Vm);
    }
}

static class Look
{
    // End the program, which has no machine yet.
    static void Misused(string line)
    {
        Console.Error.WriteLine(line);
        Environment.Exit(2);
    }

    // 0x and no more hexadecimal digits than 64 bits have.
    static ulong Address(string text)
    {
        if (!Regex.IsMatch(text, @"\A0x[0-9a-fA-F]{1,16}\z"))
            Misused("look: " + text + ": not an address, which is 0x and up to 16 hexadecimal digits");
        return ulong.Parse(text.Substring(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
    }

    static ulong[] Addresses(string[] arguments)
    {
        if (arguments.Length < 3 || arguments.Length > 4)
            Misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]");
        return arguments.Skip(1).Select(Address).ToArray();
    }

    static void Run(string target, ulong[] addresses)
    {
        using (var machine = new Machine(target))
        {
            Machine.Check(Microvmi.microvmi_pause(machine.Vm));
            Console.WriteLine(machine.Bytes(addresses[0]));
            Console.WriteLine(machine.Text(addresses[1]));
            Registers registers;
            Machine.Check(Microvmi.microvmi_read_registers(machine.Vm, 0, out registers));
            if (registers.Tag == Microvmi.X86)
                Console.WriteLine("rip 0x{0:x}", registers.Values[Microvmi.Rip]);
            if (addresses.Length > 2)
                Console.WriteLine("breakpoint 0x{0:x}", machine.WaitFor(addresses[2]));
        }
    }

    static int Main(string[] arguments)
    {
        var addresses = Addresses(arguments);
        try
        {
            Run(arguments[0], addresses);
            return 0;
        }
        catch (Exception error) // what is not caught ends a program without its Dispose
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }
}
