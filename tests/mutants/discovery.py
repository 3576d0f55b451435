# SPDX-License-Identifier: Apache-2.0
"""Bugs of finding a machine and of proving that a monitor is its own, and of how a text is read."""

from __future__ import annotations

from mutants.mutant import Mutant

PEERS = "libmicrovmi_py/transport/peers.py"
SOCKETS = "libmicrovmi_py/transport/sockets.py"
UNIXSOCK = "libmicrovmi_py/transport/unixsock.py"
PROCESSES = "libmicrovmi_py/transport/processes.py"
QEMU = "libmicrovmi_py/drivers/qemu"
MACHINES, PLACES, DISCOVERY = f"{QEMU}/machines.py", f"{QEMU}/places.py", f"{QEMU}/discovery.py"
COMMANDLINE, GREETING, MONITOR = f"{QEMU}/commandline.py", f"{QEMU}/greeting.py", f"{QEMU}/monitor.py"
REGISTRY, PARAMS, ERRORS = "libmicrovmi_py/drivers/registry.py", "libmicrovmi_py/params.py", "libmicrovmi_py/errors.py"

RIGHT = "tests/live/test_right_machine.py::test_"
FINDING = "tests/live/test_finding.py::test_"
STAND_IN = "tests/drivers/test_qemu_driver.py::test_"
TEXTS = "tests/drivers/test_qemu_texts.py::test_"
PROOF = "tests/transport/test_peers.py::test_"
TABLES = "tests/transport/test_unixsock.py::test_"
OPEN = "tests/capi/test_open.py::test_"

_PROVEN = (
    Mutant(
        MONITOR,
        "            check_peer(sock, self._process)\n",
        "",
        "opening one machine talks to another that listens there",
        (f"{RIGHT}every_session_is_with_the_machine_that_was_opened", f"{STAND_IN}the_socket_can_be_given_apart"),
    ),
    Mutant(
        PEERS,
        "        return has\n",
        "        return True\n",
        "every UNIX socket is the machine's",
        (f"{RIGHT}every_session_is_with_the_machine_that_was_opened",),
    ),
    Mutant(
        PEERS,
        "        return has\n",
        "        return listener.pid == process.pid\n",
        "a socket is taken for that of whoever began to listen, not of who has it",
        (f"{PROOF}the_process_that_accepted_is_the_peer_and_who_made_the_socket_is_not",),
    ),
    Mutant(
        PEERS,
        "    return listener.pid == process.pid\n",
        "    return True\n",
        "without rights every UNIX socket is the machine's",
        (f"{PROOF}what_cannot_be_proven_without_rights_is_refused",),
    ),
    Mutant(
        PEERS,
        "== (theirs, ours) and row.inode in inodes:",
        "== (theirs, ours):",
        "a port of another machine is taken for the machine's",
        (f"{RIGHT}a_port_that_another_machine_has_is_refused",),
    ),
    Mutant(
        PEERS,
        "(row.local, row.remote) == (theirs, ours) and",
        "row.local == theirs and",
        "a process that only listens there is taken for the peer",
        (f"{PROOF}a_connection_that_nobody_accepted_proves_nothing",),
    ),
    Mutant(
        PEERS,
        'if not theirs[0].startswith("127.") and theirs[0] != "::1" and not',
        "if not",
        "a local connection in another namespace proves this one",
        (f"{PROOF}a_process_in_another_network_namespace_is_not_the_peer_of_a_local_connection",),
    ),
    Mutant(
        PEERS,
        "        tables.append(str(process.pid))\n",
        "        pass\n",
        "a machine of a container is not reached by its address",
        (f"{RIGHT}a_machine_is_reached_in_its_namespace_by_an_address_of_its_own",),
    ),
    Mutant(
        SOCKETS,
        "plain_address(socket.inet_ntop(socket.AF_INET if",
        "(socket.inet_ntop(socket.AF_INET if",
        "a machine that listens on both IPv4 and IPv6 is never the peer",
        (f"{PROOF}the_process_that_accepted_is_the_peer_and_who_made_the_socket_is_not",),
    ),
    Mutant(
        PLACES,
        "    return not item.port or item.port <= port <= max(item.port, item.last)\n",
        "    return not item.port or item.port == port\n",
        "a monitor in a range of ports is not found",
        (f"{RIGHT}machines_that_share_a_range_of_ports_are_told_apart",),
    ),
    Mutant(
        PLACES,
        "and row.local[1] not in known]",
        "]",
        "looking for the monitor connects to the debugger's stub, which stops the machine",
        (f"{FINDING}a_debuggers_port_within_the_range_is_left_alone",),
    ),
    Mutant(
        PLACES,
        "if len({row.local[1] for row in rows}) > 1 and not item.port:",
        "if False:",
        "any port is tried, the debugger's too",
        (f"{FINDING}any_port_is_found_unless_there_is_a_debuggers_too",),
    ),
    Mutant(
        PLACES,
        'if not same_namespace(process, "net") and all(',
        "if False and all(",
        "the same port of this namespace is tried for that of another",
        (f"{RIGHT}the_same_port_in_another_network_namespace_is_another_machine",),
    ),
)

_STRANGERS = (
    Mutant(
        SOCKETS,
        "        if match := row.fullmatch(line):\n            flags,",
        "        if match := re.match(rb'()()()(.*)', line):\n            flags,",
        "a newline in anybody's socket breaks every session",
        (f"{TABLES}rows_that_others_wrote_into_the_table_are_passed_over",),
    ),
    Mutant(
        SOCKETS,
        'path = b"@" + name[1:] if name.startswith(b"\\0") else name.partition(b"\\0")[0]',
        'path = name.partition(b"\\n")[0]',
        "an abstract socket is not found",
        (f"{PROOF}the_sockets_of_a_process_are_its_own",),
    ),
    Mutant(
        DISCOVERY,
        "    near = nearest([*named, by_id] if by_id else named)\n",
        "    near = [*named, by_id] if by_id else named\n",
        "a stranger's process of the same name makes the owner's machine unreachable",
        (f"{RIGHT}a_strangers_machine_does_not_come_before_our_own",),
    ),
    Mutant(
        MACHINES,
        "if rank == min(ranks)]",
        "if rank == max(ranks)]",
        "a stranger's machine is opened in place of the owner's",
        (f"{RIGHT}a_strangers_machine_does_not_come_before_our_own",),
    ),
    Mutant(
        MACHINES,
        "uid < _USERS or uid in _SERVICES else 2",
        "uid < _USERS else 2",
        "libvirt's machine is no more than anybody's",
        (f"{RIGHT}a_strangers_machine_does_not_come_before_our_own",),
    ),
    Mutant(
        MACHINES,
        '    return f" of uid {uids[-1]}" if uids else ""\n',
        '    return ""\n',
        "listings do not tell whose the machines are",
        (f"{RIGHT}machines_that_strangers_run_under_one_name_are_listed_with_their_users",),
    ),
    Mutant(
        PROCESSES,
        "if any(targets) else None",
        "if True else None",
        "a process whose files cannot be seen has no sockets",
        (f"{PROOF}what_cannot_be_proven_without_rights_is_refused",),
    ),
)

_FINDING = (
    Mutant(
        MACHINES,
        "|qemu-kvm|kvm|qemu)",
        "|qemu-kvm|kvm|qemu.*)",
        "qemu-img and qemu-nbd count as machines",
        (f"{STAND_IN}another_program_of_qemus_is_no_machine",),
    ),
    Mutant(
        DISCOVERY,
        "[qemu for qemu in near if qemu is not by_id] or near",
        "near",
        "a machine named with digits is not found by its name",
        (f"{STAND_IN}a_machine_named_with_digits_is_found_by_its_name",),
    ),
    Mutant(
        MACHINES,
        "            groups += parse_config(_content(process, name))\n",
        "            parse_config(_content(process, name))\n",
        "what -readconfig says is not known",
        (f"{FINDING}a_file_of_options_names_the_machine_and_its_monitor",),
    ),
    Mutant(
        PLACES,
        '    reasons += [f"its -readconfig {name} was not read" for name in qemu.unread]\n',
        "",
        "a file of options that cannot be read is not told",
        (f"{FINDING}a_file_of_options_that_is_gone_is_told",),
    ),
    Mutant(
        COMMANDLINE,
        'values = {"id": match[2]} if match[2] else {}',
        "values = {}",
        "the monitor of a file of options is not found",
        (f"{TEXTS}a_file_of_options_is_read_as_the_command_line_is",),
    ),
    Mutant(
        MACHINES,
        "    return qemu if qemu and qemu.sockets() and _listens(process) else None\n",
        "    return qemu if qemu and qemu.sockets() else None\n",
        "what started a renamed QEMU is a machine as well",
        (f"{FINDING}what_started_a_renamed_qemu_is_not_taken_for_it",),
    ),
    Mutant(
        GREETING,
        "    while (first := _peeked(sock, deadline))[0] == _TELNET:\n",
        "    while (first := _peeked(sock, deadline))[0] == 0:\n",
        "telnet is taken for garbage",
        (f"{FINDING}telnet_is_spoken_over_unix_and_tcp",),
    ),
    Mutant(
        GREETING,
        "        if _HUMAN.startswith(text[: len(_HUMAN)]):\n",
        "        if False:\n",
        "the human monitor is not named",
        (f"{FINDING}a_machine_with_the_human_monitor_alone_is_told_as_such",),
    ),
    Mutant(
        PLACES,
        "    places += [os.path.join(folder, path) for folder in _folders(process)]\n",
        "",
        "a daemon's relative socket is not found",
        (f"{FINDING}a_daemon_that_left_for_another_directory",),
    ),
    Mutant(
        MACHINES,
        'return [""] if same else [process.path("root"), ""]',
        'return [""]',
        "a socket in a container is not found",
        (f"{RIGHT}a_socket_in_a_container_is_reached_through_its_root",),
    ),
    Mutant(
        UNIXSOCK,
        "    if len(path) <= LONGEST_NAME:\n",
        "    if len(path) <= LONGEST_NAME + 1:\n",
        "a socket whose path has 108 bytes is not reached",
        (f"{TABLES}a_path_as_long_as_an_address_and_a_byte_more",),
    ),
    Mutant(
        "libmicrovmi_py/transport/deadline.py",
        "self.remaining / max(1, parts)",
        "self.remaining",
        "one silent monitor uses up all the time: the free one is not reached",
        (f"{STAND_IN}a_silent_monitor_does_not_take_the_time_of_the_next",),
    ),
)

_TEXTS = (
    Mutant(
        MONITOR,
        "places = [place for place in self._endpoints if not self._is_kept(place)]",
        "places = list(self._endpoints)",
        "libvirt's monitor is told after ten seconds",
        (f"{FINDING}libvirts_monitor_is_told_at_once_and_once",),
    ),
    Mutant(
        PLACES,
        "            key = (status.st_dev, status.st_ino)\n",
        "            key = place\n",
        "one monitor is tried twice, and told twice",
        (f"{FINDING}libvirts_monitor_is_told_at_once_and_once",),
    ),
    Mutant(
        f"{QEMU}/layout.py",
        '        if not ranges:\n            raise IoError("the machine has no memory',
        '        if False:\n            raise IoError("the machine has no memory',
        "a machine without memory 'keeps changing'",
        (f"{FINDING}a_machine_without_memory_is_told_as_such",),
    ),
    Mutant(
        MACHINES,
        '    if own.link("ns/pid") not in ("", "pid:[4026531836]"):\n',
        "    if False:\n",
        "a reader in a PID namespace of its own is told that no machine runs",
        (f"{FINDING}a_reader_in_another_pid_namespace_is_told_so",),
    ),
    Mutant(
        PROCESSES,
        "users[-1] != 0 and os.stat(path).st_uid == 0",
        "False",
        "a QEMU with -runas is told to be run as its user",
        (f"{FINDING}a_qemu_that_changed_its_user_is_told_to_take_a_capability",),
    ),
    Mutant(
        ERRORS,
        '    return separator.join([*items[:most], *more]) or "none"\n',
        '    return separator.join(items) or "none"\n',
        "a list of machines has no end",
        (f"{STAND_IN}a_list_of_machines_ends_after_eight_with_those_that_are_likely_first",),
    ),
    Mutant(
        MACHINES,
        "    return _unlike(qemu.name, text), qemu.distance(), -qemu.process.start_time\n",
        "    return 0, qemu.distance(), qemu.process.start_time\n",
        "the machine that was meant is not among the eight",
        (f"{STAND_IN}a_list_of_machines_ends_after_eight_with_those_that_are_likely_first",),
    ),
    Mutant(
        PARAMS,
        "    if len(value) > LONGEST:\n",
        "    if len(value) > LONGEST + 1:\n",
        "a value of 4097 characters is accepted",
        ("tests/test_params.py::test_a_value_has_as_many_characters_as_a_path_may_have",),
    ),
    Mutant(
        PARAMS,
        '            return params.as_file() if "/" in text else params\n',
        "            return params.as_file()\n",
        "a word is never a machine's name",
        (f"{OPEN}a_machine_goes_before_a_file_of_its_name",),
    ),
    Mutant(
        REGISTRY,
        "    if params.word and not any(found for found, _ in reasons):\n",
        "    if params.word:\n",
        "a file is opened in place of a machine in trouble",
        (f"{OPEN}a_machine_goes_before_a_file_of_its_name",),
    ),
    Mutant(
        REGISTRY,
        "key=lambda reason: not reason[0])",
        "key=lambda reason: reason[0])",
        "the likely reason comes last",
        (f"{OPEN}a_machine_goes_before_a_file_of_its_name",),
    ),
)

MUTANTS = (*_PROVEN, *_STRANGERS, *_FINDING, *_TEXTS)
