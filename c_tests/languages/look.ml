(* SPDX-License-Identifier: Apache-2.0 *)
(* look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next. *)
open Ctypes
open Foreign

let uint n = Unsigned.UInt32.of_int n
let library = Dl.dlopen ~filename:"libmicrovmi.so" ~flags:[ Dl.RTLD_NOW ]
let foreign ?release_runtime_lock name kind = foreign ~from:library ?release_runtime_lock name kind

(* Structs, each with the members in their order; [struct_size] is the first one of those that may grow. *)
let define name members =
  let kind = structure name in
  let struct_size = field kind "struct_size" uint32_t in
  let rest = members kind in
  seal kind;
  (kind, struct_size, rest)

let (address_space : [ `Space ] structure typ), space_size, () =
  define "microvmi_address_space" (fun kind ->
      let _ = field kind "paging" uint32_t in
      List.iter (fun name -> ignore (field kind name uint64_t)) [ "base"; "upper_base"; "control" ];
      List.iter (fun name -> ignore (field kind name uint32_t)) [ "physical_bits"; "reserved" ])

let (intercept : [ `Intercept ] structure typ), intercept_size, (intercept_kind, intercept_address) =
  define "microvmi_intercept" (fun kind ->
      let what = field kind "kind" uint32_t in
      List.iter (fun name -> ignore (field kind name uint32_t)) [ "number"; "flags" ];
      let address = field kind "address" uint64_t in
      let _ = field kind "size" uint64_t in
      List.iter (fun name -> ignore (field kind name uint32_t)) [ "access"; "reserved" ];
      (what, address))

let (event : [ `Event ] structure typ), event_size, instruction_pointer =
  define "microvmi_event" (fun kind ->
      let short name = ignore (field kind name uint32_t) and long name = ignore (field kind name uint64_t) in
      short "kind"; long "id"; short "vcpu"; short "number";
      List.iter long [ "old_value"; "new_value"; "physical_address"; "virtual_address" ];
      short "access"; short "instruction_length";
      let pointer = field kind "instruction_pointer" uint64_t in
      short "stands"; short "reserved"; long "lost";
      pointer)

(* A tag, and room for 400 bytes, which on x86 begin with 30 registers; RIP is number 16. *)
let registers : [ `Registers ] structure typ = structure "Registers"
let tag = field registers "tag" uint32_t
let values = field registers "values" (array 50 uint64_t)
let () = seal registers
let x86 = 0
let rip = 16
let breakpoint = 3
let all_vcpus = Unsigned.UInt16.of_int 0xffff
let vcpu0 = Unsigned.UInt16.zero

let microvmi_open = foreign "microvmi_open" (string @-> ptr (ptr char) @-> returning (ptr void))
let destroy = foreign "microvmi_destroy" (ptr void @-> returning void)
let pause = foreign "microvmi_pause" (ptr void @-> returning bool)
let resume = foreign "microvmi_resume" (ptr void @-> returning bool)
let bytes_read = ptr_opt uint64_t

let read_physical =
  foreign "microvmi_read_physical"
    (ptr void @-> uint64_t @-> ptr char @-> size_t @-> bytes_read @-> returning bool)

let get_address_space =
  foreign "microvmi_get_address_space" (ptr void @-> uint16_t @-> ptr address_space @-> returning bool)

let read_virtual_padded =
  foreign "microvmi_read_virtual_padded"
    (ptr void @-> ptr address_space @-> uint64_t @-> ptr char @-> size_t @-> bytes_read @-> returning bool)

let read_registers =
  foreign "microvmi_read_registers" (ptr void @-> uint16_t @-> ptr registers @-> returning bool)

let toggle_intercept =
  foreign "microvmi_toggle_intercept" (ptr void @-> uint16_t @-> ptr intercept @-> bool @-> returning bool)

(* Others of the program's threads run while this one waits, on the same thread of the system: its error stays. *)
let listen =
  foreign ~release_runtime_lock:true "microvmi_listen" (ptr void @-> uint32_t @-> ptr event @-> returning bool)
let reply_event = foreign "microvmi_reply_event" (ptr void @-> ptr event @-> ptr_opt void @-> returning bool)
let last_error = foreign "microvmi_last_error" (void @-> returning string)
let cstring_free = foreign "rs_cstring_free" (ptr char @-> returning void)

(* What a call says by its result, and its thread's error right behind it. *)
let check good = if not good then failwith (last_error ())

let sized kind size =
  let made = make kind in
  setf made size (uint (sizeof kind));
  made

let open_machine target =
  let error = allocate (ptr char) (from_voidp char null) in
  let vm = microvmi_open target error in
  if is_null vm then begin
    let text = coerce (ptr char) string !@error in
    cstring_free !@error;
    failwith text
  end;
  vm

let bytes vm address =
  let place = CArray.make char 16 in
  check (read_physical vm address (CArray.start place) (Unsigned.Size_t.of_int 16) None);
  String.concat " " (List.map (fun c -> Printf.sprintf "%02x" (Char.code c)) (CArray.to_list place))

let text vm address =
  let space = sized address_space space_size in
  let place = CArray.make char ~initial:'\000' 257 in
  check (get_address_space vm vcpu0 (addr space));
  check (read_virtual_padded vm (addr space) address (CArray.start place) (Unsigned.Size_t.of_int 256) None);
  List.hd (String.split_on_char '\n' (coerce (ptr char) string (CArray.start place)))

let wait_for vm address =
  let code = sized intercept intercept_size and found = sized event event_size in
  setf code intercept_kind (uint breakpoint);
  setf code intercept_address address;
  check (resume vm);
  check (toggle_intercept vm all_vcpus (addr code) true);
  check (listen vm (uint 60000) (addr found));
  check (reply_event vm (addr found) None);
  getf found instruction_pointer

let hexadecimal value = Printf.sprintf "0x%Lx" (Unsigned.UInt64.to_int64 value)

(* End the program, which has no machine yet. *)
let misused line =
  prerr_endline line;
  exit 2

(* An address: 0x and no more hexadecimal digits than 64 bits have. *)
let is_address text =
  let is_digit = function '0' .. '9' | 'a' .. 'f' | 'A' .. 'F' -> true | _ -> false in
  let digits = String.length text - 2 in
  digits >= 1 && digits <= 16 && String.sub text 0 2 = "0x" && String.for_all is_digit (String.sub text 2 digits)

let address text =
  if not (is_address text) then
    misused ("look: " ^ text ^ ": not an address, which is 0x and up to 16 hexadecimal digits");
  Unsigned.UInt64.of_int64 (Int64.of_string text)

let look vm addresses =
  check (pause vm);
  print_endline (bytes vm addresses.(0));
  print_endline (text vm addresses.(1));
  let found = make registers in
  check (read_registers vm vcpu0 (addr found));
  if Unsigned.UInt32.to_int (getf found tag) = x86 then
    print_endline ("rip " ^ hexadecimal (CArray.get (getf found values) rip));
  if Array.length addresses > 2 then
    print_endline ("breakpoint " ^ hexadecimal (wait_for vm addresses.(2)))

let () =
  let count = Array.length Sys.argv in
  if count < 4 || count > 5 then misused "usage: look TARGET PHYSICAL VIRTUAL [CODE]";
  let addresses = Array.map address (Array.sub Sys.argv 2 (count - 2)) in
  try
    let vm = open_machine Sys.argv.(1) in
    Fun.protect ~finally:(fun () -> destroy vm) (fun () -> look vm addresses)
  with Failure reason ->
    prerr_endline reason;
    exit 1
