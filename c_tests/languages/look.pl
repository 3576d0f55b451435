#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
use strict;
use warnings;
use FFI::Platypus 2.00;
use FFI::Platypus::Buffer qw(scalar_to_buffer);

# Structs are packed by hand: of an event, what is asked for lies at these bytes.
use constant {
    X86 => 0, BREAKPOINT => 3, ALL_VCPUS => 0xffff,
    SPACE_SIZE => 40, INTERCEPT_SIZE => 40, EVENT_SIZE => 88, REGISTERS_SIZE => 408,
    INSTRUCTION_POINTER => 64, RIP => 8 + 16 * 8,
};

my $ffi = FFI::Platypus->new(api => 2, lib => 'libmicrovmi.so');
$ffi->attach(microvmi_open => ['string', 'opaque*'] => 'opaque');
$ffi->attach(microvmi_destroy => ['opaque'] => 'void');
$ffi->attach(microvmi_pause => ['opaque'] => 'bool');
$ffi->attach(microvmi_resume => ['opaque'] => 'bool');
$ffi->attach(microvmi_read_physical => ['opaque', 'uint64', 'opaque', 'size_t', 'opaque'] => 'bool');
$ffi->attach(microvmi_get_address_space => ['opaque', 'uint16', 'opaque'] => 'bool');
$ffi->attach(
    microvmi_read_virtual_padded => ['opaque', 'opaque', 'uint64', 'opaque', 'size_t', 'opaque'] => 'bool');
$ffi->attach(microvmi_read_registers => ['opaque', 'uint16', 'opaque'] => 'bool');
$ffi->attach(microvmi_toggle_intercept => ['opaque', 'uint16', 'opaque', 'bool'] => 'bool');
$ffi->attach(microvmi_listen => ['opaque', 'uint32', 'opaque'] => 'bool');
$ffi->attach(microvmi_reply_event => ['opaque', 'opaque', 'opaque'] => 'bool');
$ffi->attach(microvmi_last_error => [] => 'string');
$ffi->attach(rs_cstring_free => ['opaque'] => 'void');

# Where the bytes of a scalar are.
sub at { return (scalar_to_buffer($_[0]))[0] }

# What a call says by its result, and its thread's error right behind it.
sub check { die microvmi_last_error(), "\n" unless $_[0] }

# End the program, which has no machine yet.
sub misused { print STDERR "$_[0]\n"; exit 2 }

# An address: 0x and no more hexadecimal digits than 64 bits have.
sub address {
    my ($text) = @_;
    misused("look: $text: not an address, which is 0x and up to 16 hexadecimal digits")
        unless $text =~ /\A0x[0-9a-fA-F]{1,16}\z/;
    no warnings 'portable';
    return hex $text;
}

sub open_machine {
    my ($target) = @_;
    my $error;
    my $vm = microvmi_open($target, \$error);
    return $vm if defined $vm;
    my $text = $ffi->cast('opaque', 'string', $error);
    rs_cstring_free($error);
    die "$text\n";
}

sub text_at {
    my ($vm, $address) = @_;
    my $space = pack "L x36", SPACE_SIZE;
    my $text = "\0" x 256;
    check(microvmi_get_address_space($vm, 0, at($space)));
    check(microvmi_read_virtual_padded($vm, at($space), $address, at($text), length $text, undef));
    return $text =~ /\A([^\n\0]*)/ ? $1 : '';
}

sub wait_for {
    my ($vm, $address) = @_;
    my $code = pack "L L L L Q Q L L", INTERCEPT_SIZE, BREAKPOINT, 0, 0, $address, 0, 0, 0;
    my $event = pack "L x84", EVENT_SIZE;
    check(microvmi_resume($vm));
    check(microvmi_toggle_intercept($vm, ALL_VCPUS, at($code), 1));
    check(microvmi_listen($vm, 60000, at($event)));
    check(microvmi_reply_event($vm, at($event), undef));
    return unpack "Q", substr $event, INSTRUCTION_POINTER, 8;
}

sub look {
    my ($vm, $physical, $virtual, $code) = @_;
    check(microvmi_pause($vm));
    my $bytes = "\0" x 16;
    check(microvmi_read_physical($vm, $physical, at($bytes), length $bytes, undef));
    print join(' ', unpack('(H2)*', $bytes)), "\n";
    print text_at($vm, $virtual), "\n";
    my $registers = "\0" x REGISTERS_SIZE;
    check(microvmi_read_registers($vm, 0, at($registers)));
    printf "rip 0x%x\n", unpack 'Q', substr $registers, RIP, 8 if unpack('L', $registers) == X86;
    printf "breakpoint 0x%x\n", wait_for($vm, $code) if defined $code;
}

misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]") unless @ARGV == 3 || @ARGV == 4;
my ($target, @addresses) = ($ARGV[0], map { address($_) } @ARGV[1 .. $#ARGV]);
my $vm = eval { open_machine($target) } // do { print STDERR $@; exit 1 };
my $good = eval { look($vm, @addresses); 1 };
print STDERR $@ unless $good;
microvmi_destroy($vm);
exit($good ? 0 : 1);
