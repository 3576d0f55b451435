# SPDX-License-Identifier: Apache-2.0
"""Bugs of listing machines: others who are disturbed, URIs that open something else, texts that are not cleaned."""

from __future__ import annotations

from mutants.mutant import Mutant

QEMU = "libmicrovmi_py/drivers/qemu"
INQUIRY, LISTING, DISCOVERY = f"{QEMU}/inquiry.py", f"{QEMU}/listing.py", f"{QEMU}/discovery.py"
LISTED, ABOVE = "libmicrovmi_py/listed.py", "libmicrovmi_py/machine/listing.py"
XEN = "libmicrovmi_py/drivers/xen/listing.py"
C = "libmicrovmi_py/_native/listing.c"

OF_QEMU = "tests/drivers/qemu/test_qemu_listing.py::test_"
ASKED = "tests/drivers/qemu/test_inquiry.py::test_"
LISTS = "tests/test_listing.py::test_"
CONTRACT = "tests/contract/test_contract_listing.py::test_"
DOMAINS = "tests/drivers/xen/test_xen_listing.py::test_"

MUTANTS = (
    Mutant(
        INQUIRY,
        "                if held_by_another(self.qemu.process, place):\n",
        "                if False:\n",
        "whoever uses a monitor finds a list waiting in its queue",
        (f"{OF_QEMU}a_monitor_that_another_client_holds_is_left_alone",),
    ),
    Mutant(
        INQUIRY,
        "            check_peer(sock, self.qemu.process)\n",
        "",
        "a process that names another's monitor is shown with that machine's state",
        (f"{OF_QEMU}a_process_that_names_another_s_monitor_tells_nothing_of_it",),
    ),
    Mutant(
        INQUIRY,
        "            inquiry.hang_up()\n            del asked[number]\n",
        "            del asked[number]\n",
        "a list keeps monitors connected",
        (f"{OF_QEMU}nothing_is_left_open",),
    ),
    Mutant(
        INQUIRY,
        "        if self._size > _MOST or self._count > _MOST_MESSAGES:\n",
        "        if False:\n",
        "a monitor that never ends takes memory and all of the time",
        (f"{ASKED}whoever_does_not_speak_it_is_left_with_a_reason",),
    ),
    Mutant(
        INQUIRY,
        "        return self._end.remaining if crowded or self._places else ALL\n",
        "        return ALL\n",
        "one monitor that hangs keeps the others from being asked",
        (f"{ASKED}the_next_monitor_is_asked_if_one_does_not_answer",),
    ),
    Mutant(
        LISTING,
        "            return self.inquiry if self._qemu.process.standing is False else None\n",
        "            return self.inquiry\n",
        "a QEMU that is stopped has connections pile up in its queue",
        (f"{OF_QEMU}a_process_that_is_stopped_is_not_waited_for",),
    ),
    Mutant(
        LISTING,
        "            near = nearest(same) if findable else []\n",
        "            near = same[:1]\n",
        "the URI of a machine is one of several machines' name",
        (f"{OF_QEMU}machines_of_one_name_are_opened_by_their_processes",),
    ),
    Mutant(
        LISTING,
        "started=str(process.start_time))\n",
        "started=str(0))\n",
        "the URI of a machine opens nothing",
        (f"{OF_QEMU}machines_of_one_name_are_opened_by_their_processes",),
    ),
    Mutant(
        DISCOVERY,
        "    if qemu is None or qemu.process.start_time != started:\n",
        "    if qemu is None:\n",
        "a URI opens another machine whose process got the same number",
        (f"{OF_QEMU}the_uri_of_a_process_opens_no_other_that_got_its_number",),
    ),
    Mutant(
        LISTED,
        " and dict(Parameters.from_uri(uri)) == values\n",
        "\n",
        "a name that no URI can tell gets one that opens nothing",
        (f"{LISTS}what_no_uri_can_tell_has_none",),
    ),
    Mutant(
        LISTED,
        "quote_from_bytes(value.encode(), safe='/')",
        "value",
        "a machine's name makes a URI that opens another machine",
        (f"{LISTS}a_uri_is_parsed_to_what_it_was_made_of",),
    ),
    Mutant(
        ABOVE,
        "name=shortened(escaped(text(machine.name, what)), _LONGEST_NAME),",
        "name=shortened(text(machine.name, what), _LONGEST_NAME),",
        "a machine's name moves the cursor of whoever lists it",
        (f"{LISTS}texts_of_others_are_one_line_each",),
    ),
    Mutant(
        ABOVE,
        "    except MicrovmiError as err:\n        found.append(",
        "    except ZeroDivisionError as err:\n        found.append(",
        "a driver that can ask nobody tells nobody why",
        (f"{LISTS}a_driver_that_can_ask_nobody_is_a_line_of_its_reason",),
    ),
    Mutant(
        ABOVE,
        "    except Exception as err:\n",
        "    except ZeroDivisionError as err:\n",
        "one plugin that fails takes the list of all machines with it",
        (f"{LISTS}a_plugin_that_fails_is_a_warning_and_no_more",),
    ),
    Mutant(
        ABOVE,
        '    return uri if len(uri) <= LONGEST_URI and uri.isascii() and uri.isprintable() else ""\n',
        "    return uri\n",
        "a URI that is cut opens something else",
        (f"{LISTS}what_is_too_long_is_cut_at_a_character_and_a_uri_not_at_all",),
    ),
    Mutant(
        XEN,
        "        if domid == 0:\n            continue\n",
        "",
        "dom0 is listed as a machine to be opened",
        (f"{DOMAINS}a_domain_is_told_whole_and_dom0_is_not_among_them",),
    ),
    Mutant(
        XEN,
        'or ("" if str(domid) in count else uri_of(driver, vm_name=str(domid)))\n',
        "or uri_of(driver, vm_name=str(domid))\n",
        "the URI of a domain opens the one whose name is its number",
        (f"{DOMAINS}a_name_or_an_id_opens_a_domain_where_it_is_no_other_s",),
    ),
    Mutant(
        C,
        "(capacity == 0 || mvi_need_machine(machines))",
        '(capacity == 0 || mvi_need(machines, "machines"))',
        "a program that forgot struct_size has its memory overwritten",
        (f"{CONTRACT}what_is_no_list_is_refused",),
    ),
)
