"""One test for each row of the tables of the protocol: commands, modifiers, sub-commands, replies, errors.

Each row is a conversation with a relay of its own. `PORT` stands for any port in replies.
"""

from __future__ import annotations

import itertools
import re
import signal
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.daemon import Daemon, StartDaemon, free_ports, wait_until
from support.phone import MakeCall, Phone
from support.tools import need_ipv6

BRIDGE = ("-l", "127.0.0.1/127.0.0.2")
BOTH_FAMILIES = ("-l", "127.0.0.1", "-6", "/::1")


@dataclass
class Row:
    """What a relay with these settings answers, command by command."""

    name: str
    talk: list[tuple[str, str]]
    options: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def row(name: str, *talk: str, options: tuple[str, ...] = (), **settings: Any) -> Row:
    """`talk` is commands and replies in turn."""
    return Row(name, list(zip(talk[::2], talk[1::2], strict=True)), options, settings)


def check(daemon: Daemon, talk: list[tuple[str, str]]) -> None:
    for command, reply in talk:
        pattern = re.escape(reply).replace("PORT", r"\d{4,5}")
        answer = daemon.command(command, reply.count("\n") + 1)
        assert re.fullmatch(pattern, answer), f"{command!r}: {answer!r} is not {reply!r}"


def rows(*table: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", table, ids=str)


U = ("U c 127.0.0.1 30000 f", "PORT 127.0.0.1")
L = ("L c 127.0.0.1 30100 f t", "PORT 127.0.0.1")
I_LINES = "\n".join(
    f"{name}: 0"
    for name in (
        "sessions created",
        "active sessions",
        "active streams",
        "packets received",
        "packets transmitted",
    )
)


@rows(
    row("V", "V", "20040107", "v", "20040107", "V x", "E1", "Vx", "E2", "V && D", "E3"),
    row("VF", "VF 20050322", "1", "vf 20170313", "0", "VF", "E1", "VF 1 2", "E1", "VFx 1", "E2"),
    row("VG is V with a modifier", "VG", "E2"),
    row("U with 5 words", *U),
    row("U with 6 words", "U c 127.0.0.1 30000 f t", "PORT 127.0.0.1"),
    row("U with 7 words", "U c 127.0.0.1 30000 f unix:/x tag", "E75"),
    row("U with 8 words", "U c 127.0.0.1 30000 f t unix:/x tag", "E75"),
    row("U with too few or too many", "U c 127.0.0.1 30000", "E1", "U c 127.0.0.1 1 f t n g x", "E1"),
    row("U takes sub-commands", "U c 127.0.0.1 30000 f && S ttl=5", "PORT 127.0.0.1"),
    row("L", *U, *L, "L c 127.0.0.1 30100 f", "PORT 127.0.0.1", "L c 127.0.0.1 30100 f t x", "E1"),
    row("L takes sub-commands", *U, "L c 127.0.0.1 30100 f t && S ttl=5", "PORT 127.0.0.1"),
    row("D", *U, "D c", "E1", "D c f t x", "E1", "Dx c f", "E8", "D c f && D", "E3", "D c f", "0"),
    row("D with a to-tag", *U, "d c f t", "0", "D c f t", "E50"),
    row("Dw", "Uw c 127.0.0.1 30000 f", "PORT 127.0.0.1", "Dw c x f", "0", "Q c f t", "E50"),
    row("P", *U, "P c p", "E1", "P c p 0 f t x", "E1", "Px c p 0 f", "E17", "P c /no/prompt 0 f", "E60"),
    row("P takes a signed count", *U, "P-1 c p x f t", "E60", "P0 c p x f t", "0", "P+2 c p x f", "E60"),
    row("P takes no sub-commands", "P c p 0 f && D", "E3"),
    row("S", *U, "S c", "E1", "S c f t x", "E1", "Sx c f", "E2", "S c f && D", "E3", "S c f t", "0"),
    row("R", *U, *L, "R c", "E1", "R c f t x", "E1", "R c f && D", "E3", "R c f", "0", "Rs c f t", "0"),
    row("R with other modifiers", *U, *L, "Rp c f", "E6", "Rx c f", "E7"),
    row("C", *U, *L, "C c n", "E1", "C c n f t x", "E1", "C c n f && D", "E3", "C c n f", "0"),
    row("C with modifiers", *U, *L, "Cx c n f", "E7", "Cs c n f t", "0", "Cp c n f t", "E65"),
    row("N", *U, *L, "N c", "E1", "N c f t x", "E1", "N c f && D", "E3", "R c f", "0", "N c f t", "0"),
    row("N with modifiers", *U, *L, "NaX c f", "E6", "Nx c f", "E7", "R c f", "0", "Na c f", "0"),
    row("Q", *U, "Q c f", "60 0 0 0 0", "Q c f t", "60 0 0 0 0", "Q c", "E1", "Qx c f", "E19"),
    row(
        "Q with 15 words, and 16",
        *U,
        f"Q c f t{' ttl' * 11}",
        " ".join(["60"] * 11),
        "Q c f t" + " ttl" * 12,
        "E1",
    ),
    row("Q takes sub-commands", *U, "Q c f t ttl && D", "60", "Q c f", "E50"),
    row("X", *U, "X x", "E1", "Xx", "E2", "X && D", "E3", "X", "0", "Q c f", "E50"),
    row(
        "I", "I", I_LINES, "Ib", I_LINES, "Il", f"{I_LINES}\naverage load: 0.000000", "Ix", "E18", "I x", "E1"
    ),
    row("I takes no sub-commands", "I && D", "E3"),
    row("G", "G nsess_created", "0", "Gv nsess_created", "nsess_created=0", "Gx nsess_created", "E9"),
    row(
        "G without names, and with 23 and 24 words",
        "G",
        "",
        f"G{' nsess_created' * 22}",
        " ".join("0" * 22),
        f"G{' x' * 23}",
        "E5",
    ),
    row("G takes no sub-commands", "G && D", "E3"),
)
def test_command(row: Row, start_daemon: StartDaemon) -> None:
    check(start_daemon(*row.options, **row.settings), row.talk)


@rows(
    row(
        "e",
        "Ue c 127.0.0.1 30000 f",
        "PORT 127.0.0.1",
        "L c 127.0.0.1 30100 f t",
        "PORT 127.0.0.2",
        listen=BRIDGE,
    ),
    row(
        "ei and ie",
        "Uei c 127.0.0.1 1 f",
        "PORT 127.0.0.1",
        "Uie d 127.0.0.1 1 f",
        "PORT 127.0.0.2",
        listen=BRIDGE,
    ),
    row("e and i thrice", "Ueie c 127.0.0.1 1 f", "E11", "Ueii c 127.0.0.1 1 f", "E12", listen=BRIDGE),
    row("e and i without bridge mode", "Ue c 127.0.0.1 1 f", "E11", "Ui c 127.0.0.1 1 f", "E12"),
    row("6", "U6 c ::1 1 f", "PORT ::1 6", "L6 c ::1 3 f t", "PORT ::1 6", listen=BOTH_FAMILIES),
    row(
        "6 and the other family",
        "U6 c 127.0.0.1 1 f",
        "E37",
        "U c ::1 1 f",
        "PORT 127.0.0.1",
        listen=BOTH_FAMILIES,
    ),
    row("6 without an IPv6 address", "U6 c ::1 1 f", "E36"),
    row("w", "Uw c 127.0.0.1 1 f", "PORT 127.0.0.1", "Dw c f", "0", "Q c f", "60 0 0 0 0", "D c f", "0"),
    row("z", "Uz1 c 127.0.0.1 1 f", "PORT 127.0.0.1", "Uz0999 c 127.0.0.1 1 f", "PORT 127.0.0.1"),
    row(
        "z out of range",
        "Uz c 127.0.0.1 1 f",
        "E13",
        "Uz0 c 127.0.0.1 1 f",
        "E13",
        "Uz1000 c 127.0.0.1 1 f",
        "E13",
    ),
    row(
        "c",
        "Uc0,8,101 c 127.0.0.1 1 f",
        "PORT 127.0.0.1",
        "Uc c 127.0.0.1 1 f",
        "E14",
        "Uc0c8 c 0 0 f",
        "E14",
    ),
    row(
        "l with an address",
        "Ul127.0.0.3 c 127.0.0.1 1 f",
        "PORT 127.0.0.3",
        "L c 127.0.0.1 3 f t",
        "PORT 127.0.0.3",
    ),
    row("l with IPv6", "Ul[::1] c 127.0.0.1 1 f", "PORT ::1 6", listen=BOTH_FAMILIES),
    row(
        "l with a label",
        "Ul{lab} c 127.0.0.1 1 f",
        "PORT 127.0.0.4",
        "Ul{x} c 127.0.0.1 1 f",
        "E31",
        listen=("-l", "127.0.0.1", "-l", "lab@127.0.0.4"),
    ),
    row(
        "l that is none",
        "Ul c 127.0.0.1 1 f",
        "E15",
        "Ulx c 127.0.0.1 1 f",
        "E15",
        "Ul[x c 127.0.0.1 1 f",
        "E15",
    ),
    row("l that cannot be bound", "Ul10.9.9.9 c 127.0.0.1 1 f", "E72"),
    row("r", "Ur127.0.0.2 c 127.0.0.1 1 f", "PORT 127.0.0.1", listen=("-l", "127.0.0.3")),
    row("r that is none", "Ur c 127.0.0.1 1 f", "E16", "Urx c 127.0.0.1 1 f", "E16"),
    row(
        "n moves a side",
        *U,
        *L,
        "Un c 127.0.0.1 30000 f",
        "PORT 127.0.0.1",
        "Ln c 127.0.0.1 1 f t",
        "PORT 127.0.0.1",
    ),
    row(
        "letters of other programs",
        *(word for x in "tofpdghjkmquvxyb" for word in (f"U{x} c 127.0.0.1 1 f", "E35")),
    ),
    row(
        "capital letters",
        "UIEC0,8 c 127.0.0.1 1 f",
        "PORT 127.0.0.2",
        "UASW c 0 0 f2",
        "PORT 127.0.0.1",
        listen=BRIDGE,
    ),
)
def test_modifier(row: Row, start_daemon: StartDaemon) -> None:
    if row.settings.get("listen") == BOTH_FAMILIES:
        need_ipv6()
    check(start_daemon(*row.options, **row.settings), row.talk)


@pytest.mark.parametrize(("modifier", "follows"), [("a", False), ("s", True), ("as", True), ("sa", False)])
def test_modifiers_a_and_s(modifier: str, follows: bool, start_daemon: StartDaemon) -> None:
    """An asymmetric party keeps its signalled address, a symmetric one is followed; the last letter wins."""
    daemon = start_daemon("--latch", "legacy")
    with Phone() as caller, Phone() as callee, Phone() as elsewhere:
        at_callee = int(daemon.command(f"U{modifier} c {caller.media} f").split()[0])
        at_caller = int(daemon.command(f"L c {callee.media} f t").split()[0])
        elsewhere.rtp.sendto(elsewhere.source.packet(), ("127.0.0.1", at_caller))
        assert len(callee.hear(1)) == 1
        callee.rtp.sendto(callee.source.packet(), ("127.0.0.1", at_callee))
        hears, silent = (elsewhere, caller) if follows else (caller, elsewhere)
        assert len(hears.hear(1)) == 1
        assert silent.silence()


def test_n_gives_another_port(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    first = daemon.command("U c 127.0.0.1 30000 f")
    assert daemon.command("U c 127.0.0.1 30000 f") == first
    assert daemon.command("Un c 127.0.0.1 30000 f") != first


@rows(
    row("D", "U c 127.0.0.1 1 f && D", "PORT 127.0.0.1", "Q c f t", "E50"),
    row(
        "D of L", *U, "L c 127.0.0.1 3 f t && D", "PORT 127.0.0.1", "Q c f t", "E50", "G nsess_complete", "1"
    ),
    row("Dw", "Uw c 127.0.0.1 1 f && Dw", "PORT 127.0.0.1", "Q c f", "60 0 0 0 0"),
    row("Dx", "U c 127.0.0.1 1 f && Dx", "E3", "U c 127.0.0.1 1 f && D x", "E3", "I", I_LINES),
    row("S ttl", "U c 127.0.0.1 1 f && S ttl=9", "PORT 127.0.0.1", "Q c f", "9 0 0 0 0"),
    row("S tos", "U c 127.0.0.1 1 f && Sr tos=16 && Sx tos=300", "PORT 127.0.0.1"),
    row("S tos of IPv6", "U6 c ::1 1 f && S tos=16", "PORT ::1 6 && -1", listen=BOTH_FAMILIES),
    row(
        "S of nothing",
        *(
            word
            for bad in (
                "S",
                "S ttl=0",
                "S ttl=x",
                "S ttl=-1",
                "S ttl",
                "S foo=1",
                "Srr ttl=1",
                "S ttl=1 tos=1",
            )
            for word in (f"U c 127.0.0.1 1 f && {bad}", "E3")
        ),
    ),
    row(
        "L",
        "U c 127.0.0.1 1 f t && L 127.0.0.1 3",
        "PORT 127.0.0.1 && PORT 127.0.0.1",
        "G nsess_complete",
        "1",
    ),
    row("L needs both tags", "U c 127.0.0.1 1 f && L 127.0.0.1 3", "E3"),
    row(
        "L with a bad modifier",
        "U c 127.0.0.1 1 f t && Lz 127.0.0.1 3",
        "E3",
        "U c 127.0.0.1 1 f t && L 127.0.0.1",
        "E3",
    ),
    row("L of L", *U, "L c 127.0.0.1 3 f t && L 127.0.0.1 5", "E3"),
    row("C", *U, *L, "U g 127.0.0.1 5 a b && L 127.0.0.1 7 && C c f t", "PORT 127.0.0.1 && PORT 127.0.0.1"),
    row(
        "C of nothing",
        "U g 127.0.0.1 5 a b && L 127.0.0.1 7 && C c f t",
        "PORT 127.0.0.1 && PORT 127.0.0.1 && -1",
    ),
    row(
        "C of itself",
        "U g 127.0.0.1 5 a b && L 127.0.0.1 7 && C g a b",
        "PORT 127.0.0.1 && PORT 127.0.0.1 && -1",
    ),
    row("C without all words", "U g 127.0.0.1 5 a b && C c f", "E3", "U g 127.0.0.1 5 a b && Cx c f t", "E3"),
    row("M without modules", *(word for i in range(7) for word in (f"U c 127.0.0.1 1 f && M{i}:1 x", "E3"))),
    row(
        "results",
        "U c 127.0.0.1 1 f t && S ttl=5 && L 127.0.0.1 3 && S ttl=5",
        "PORT 127.0.0.1 && 0 && PORT 127.0.0.1",
    ),
    row(
        "one that fails ends the rest",
        "U c 127.0.0.1 1 f t && C x y z && D",
        "PORT 127.0.0.1 && -1",
        "D c f",
        "0",
    ),
    row(
        "15 and 16",
        f"U c 127.0.0.1 1 f{' && S ttl=5' * 15}",
        "PORT 127.0.0.1",
        f"U c 127.0.0.1 1 f{' && S ttl=5' * 16}",
        "E5",
    ),
    row("empty", "&& D", "E5", "U c 127.0.0.1 1 f && && D", "E5", "U c 127.0.0.1 1 f &&", "E5"),
    row("L that finds nothing runs none", "L c 127.0.0.1 1 f t && D", "0"),
)
def test_sub_command(row: Row, start_daemon: StartDaemon) -> None:
    if row.settings.get("listen") == BOTH_FAMILIES:
        need_ipv6()
    check(start_daemon(*row.options, **row.settings), row.talk)


@rows(
    row(
        "a wildcard has no address",
        "U c 127.0.0.1 1 f",
        "PORT",
        "L c 127.0.0.1 3 f t",
        "PORT",
        listen=("-l", "*"),
    ),
    row("a numeric address", "U c 127.0.0.1 1 f", "PORT 127.0.0.1", listen=("-l", "localhost")),
    row(
        "an advertised address",
        "U c 127.0.0.1 1 f",
        "PORT pub.example",
        listen=("-l", "127.0.0.1=pub.example"),
    ),
    row(
        "advertised addresses of a bridge",
        "Uie c 127.0.0.1 1 f",
        "PORT two.example",
        options=("-A", "one.example/two.example"),
        listen=BRIDGE,
    ),
    row("IPv6", "U6 c ::1 1 f", "PORT ::1 6", listen=("-6", "::1")),
    row("L without a session", "L c 127.0.0.1 1 f t", "0", "G ncmds_errs", "1"),
    row(
        "D S N X P R",
        *U,
        *L,
        "R c f",
        "0",
        "N c f",
        "0",
        "P0 c p 0 f",
        "0",
        "S c f",
        "0",
        "D c f",
        "0",
        "X",
        "0",
    ),
    row("C", *U, *L, "C c name f", "0", "Cp c udp:127.0.0.1:9 t f", "PORT 127.0.0.1"),
)
def test_reply(row: Row, start_daemon: StartDaemon) -> None:
    if "-6" in row.settings.get("listen", ()):
        need_ipv6()
    check(start_daemon(*row.options, **row.settings), row.talk)


def test_the_returned_port_is_that_of_rtp_and_rtcp_is_above(
    start_daemon: StartDaemon, make_call: MakeCall
) -> None:
    call = make_call(start_daemon())
    assert call.at_callee_side.port % 2 == 0
    call.talk(1)
    report = call.caller.report(call.at_caller_side)
    assert call.callee.hear_rtcp() == [report]


FROM_TAG_PARTY, OTHER_PARTY = 7, 4
STATS = {
    "ttl": r"60|59",
    "npkts_ina": str(FROM_TAG_PARTY),
    "npkts_ino": str(OTHER_PARTY),
    "nrelayed": str(FROM_TAG_PARTY + OTHER_PARTY),
    "ndropped": "0",
    "longest_ipi": r"0\.\d{6}",
    "rtpa_nsent": str(FROM_TAG_PARTY + 1),
    "rtpa_nrcvd": str(FROM_TAG_PARTY - 2),
    "rtpa_ndups": "1",
    "rtpa_nlost": "3",
    "rtpa_perrs": "1",
    "rtpa_jlast": r"\d+\.\d{6}",
    "rtpa_jmax": r"\d+\.\d{6}",
    "rtpa_javg": r"\d+\.\d{6}",
}


@pytest.fixture
def talked(start_daemon: StartDaemon, make_call: MakeCall) -> Any:
    """The caller said five packets, one of them twice, with three missing, and something that is not RTP."""
    call = make_call(start_daemon())
    packets = call.caller.source.packets(8)
    said = [*packets[:3], packets[2], *packets[6:], b"not RTP"]
    for packet in said:
        call.caller.send(call.at_caller_side, [packet])
        assert call.callee.hear(1) == [packet]
    call.callee.say(call.at_callee_side, OTHER_PARTY)
    assert len(call.caller.hear(OTHER_PARTY)) == OTHER_PARTY
    return call


@pytest.mark.parametrize("name", STATS)
def test_stat_of_q(name: str, talked: Any) -> None:
    plain = talked.command("Q", name)
    assert re.fullmatch(STATS[name], plain), plain
    named = talked.command("Qv", name, "ttl")
    assert re.fullmatch(rf"{name}=({STATS[name]}) ttl=\d+", named), named


def test_stats_of_q_follow_the_first_tag(talked: Any) -> None:
    swapped = talked.daemon.command(
        f"Q {talked.call_id} {talked.to_tag} {talked.from_tag} npkts_ina npkts_ino"
    )
    assert swapped == f"{OTHER_PARTY} {FROM_TAG_PARTY}"
    assert talked.command("Q", "rtpa_none") == "E62"


COUNTERS = {
    "nsess_created": "1",
    "nsess_destroyed": "1",
    "nsess_timeout": "0",
    "nsess_complete": "1",
    "nsess_nortp": "0",
    "nsess_owrtp": "0",
    "nsess_nortcp": "1",
    "nsess_owrtcp": "0",
    "nplrs_created": "0",
    "nplrs_destroyed": "0",
    "npkts_rcvd": "11",
    "npkts_played": "0",
    "npkts_relayed": "11",
    "npkts_resizer_in": "0",
    "npkts_resizer_out": "0",
    "npkts_resizer_discard": "0",
    "npkts_discard": "0",
    "total_duration": r"\d+\.\d{6}",
    "ncmds_rcvd": "5",
    "ncmds_rcvd_ndups": "0",
    "ncmds_succd": "4",
    "ncmds_errs": "0",
    "ncmds_repld": "4",
    "rtpa_nsent": str(FROM_TAG_PARTY + 1 + OTHER_PARTY),
    "rtpa_nrcvd": str(FROM_TAG_PARTY - 2 + OTHER_PARTY),
    "rtpa_ndups": "1",
    "rtpa_nlost": "3",
    "rtpa_perrs": "1",
    "pps_in": r"\d+\.\d{6}",
}


@pytest.mark.parametrize("name", COUNTERS)
def test_counter_of_g(name: str, talked: Any) -> None:
    """After V (of the fixture), U, L and D, with the G itself received but not answered yet."""
    assert talked.command("D") == "0"
    value = talked.daemon.command(f"Gv {name}")
    assert re.fullmatch(rf"{name}=({COUNTERS[name]})", value), value


ERRORS = [
    row("E0", "Z c", "E0", "#", "E0"),
    row("E1", "D", "E1", "L c 127.0.0.1 1", "E1"),
    row("E2", "Vx", "E2", "VFx 1", "E2", "Sx c f", "E2", "Xx", "E2"),
    row("E3", "V && D", "E3", "U c 127.0.0.1 1 f && Z", "E3", "U c 127.0.0.1 1 f && M9:1 x", "E3"),
    row("E5", "", "E5", " \t ", "E5", "V\0", "E5", " ".join("V" * 24), "E5", "V &&", "E5"),
    row("E6", "Nax c f", "E6", "Rp c f", "E6"),
    row("E7", "Nx c f", "E7", "Rx c f", "E7", "Cx c n f", "E7", "CNone c n f", "E7"),
    row("E8", "Dx c f", "E8"),
    row("E9", "Gx", "E9"),
    row("E10", "U c 127.0.0.1 1 f unix:/x %zz", "E10", "U c 127.0.0.1 1 f unix:/x a%4", "E10"),
    row("E11", "Ue c 127.0.0.1 1 f", "E11"),
    row("E12", "Ui c 127.0.0.1 1 f", "E12"),
    row("E13", "Uz c 127.0.0.1 1 f", "E13"),
    row("E14", "Uc c 127.0.0.1 1 f", "E14"),
    row("E15", "Ul c 127.0.0.1 1 f", "E15"),
    row("E16", "Ur c 127.0.0.1 1 f", "E16"),
    row("E17", "Px c p 0 f", "E17"),
    row("E18", "Ix", "E18"),
    row("E19 and E50", "Qx c f", "E50", *U, "Qx c f", "E19"),
    row("E31", "Ul{x} c 127.0.0.1 1 f", "E31"),
    row("E35", "Uk c 127.0.0.1 1 f", "E35", *U, "P c p session f", "E35"),
    row("E36", "U6 c ::1 1 f", "E36"),
    row("E37", "U c 127.0.0.256 1 f", "E37", "U c 127.0.0.1 x f", "E37", "U c 127.0.0.1 -1 f", "E37"),
    row(
        "E50",
        *(
            w
            for x in ("D c f", "P c p 0 f", "S c f", "C c n f", "R c f", "N c f", "Q c f")
            for w in (x, "E50")
        ),
    ),
    row("E50 of N", *U, *L, "N c f", "E50"),
    row("E50 of R", *U, *L, "R c f", "E50", record=False),
    row("E60", *U, "P c /no/prompt 0,8 f", "E60", "P c p x f", "E60"),
    row("E62", *U, "Q c f t nothing", "E62"),
    row(
        "E65",
        *U,
        *L,
        "C c udp:127.0.0.1 f",
        "E65",
        "Cp c name f",
        "E65",
        "C c udp:no.such.host.invalid:9 f",
        "E65",
    ),
    row("E68", "G nothing", "E68"),
    row("E75", "U c 127.0.0.1 1 f unix:/x tag", "E75"),
]


@rows(*ERRORS)
def test_error(row: Row, start_daemon: StartDaemon) -> None:
    check(start_daemon(*row.options, **row.settings), row.talk)


def test_e25_and_e26_are_not_needed_as_long_replies_fit(start_daemon: StartDaemon) -> None:
    """23 words of the longest name, or 11 stats, stay below the limit of 1024 bytes, and are answered."""
    daemon = start_daemon()
    names = " ".join(["npkts_resizer_discard"] * 22)
    assert daemon.command(f"Gv {names}") == " ".join(["npkts_resizer_discard=0"] * 22)
    daemon.command("U c 127.0.0.1 1 f")
    assert len(daemon.command(f"Qv c f t {' '.join(['longest_ipi'] * 11)}").split()) == 11


def test_e32_is_for_an_address_without_a_route(start_daemon: StartDaemon) -> None:
    assert start_daemon().command("Ur[fe80::1] c 127.0.0.1 1 f") == "E32"


def test_e71_and_e72_when_ports_are_exhausted(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-b", ports=free_ports(2))
    assert daemon.command("U a 127.0.0.1 1 f").endswith("127.0.0.1")
    # Of two pairs one is free, but the walk tries one fewer than there are.
    with_one_left = daemon.command("L a 127.0.0.1 3 f t")
    assert daemon.command("U b 127.0.0.1 1 f") == "E72"
    assert daemon.command("Ul10.9.9.9 c 127.0.0.1 1 f") == "E72"
    assert daemon.command("Lnl10.9.9.9 a 127.0.0.1 3 f t") == "E71"
    assert with_one_left.endswith("127.0.0.1")


def test_e99_while_it_drains(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    daemon.command("U a 127.0.0.1 1 f")
    daemon.process.send_signal(signal.SIGHUP)
    calls = itertools.count()
    wait_until(lambda: daemon.command(f"U {next(calls)} 127.0.0.1 1 f") == "E99", "new sessions are refused")
    assert daemon.command("U a 127.0.0.1 1 f").endswith("127.0.0.1")
    assert daemon.command("X") == "0"
    assert daemon.wait() == 0


@rows(
    row("R", *U, *L, "R c f t", "0", "R c f t", "0"),
    row("Rs", *U, *L, "Rs c f t", "0"),
    row("R of the other party", *U, *L, "R c t f", "0"),
    row("C to a file", *U, *L, "C c name f t", "0", "C c other f t", "0"),
    row("N", *U, *L, "R c f t", "0", "N c f t", "0", "N c f t", "E50"),
    row("N of the other party", *U, *L, "R c f t", "0", "N c t f", "E50", "Na c t f", "0"),
)
def test_request_for_a_recording_as_the_c_program_takes_it(row: Row, start_daemon: StartDaemon) -> None:
    """`--compat`: names and number of files."""
    daemon = start_daemon("--compat", *row.options)
    check(daemon, row.talk)
    assert daemon.command("X") == "0"
    expected = {"C to a file": "name"}.get(
        row.name, "c=f.a" if row.name == "R of the other party" else "c=f.o"
    )
    wanted = {f"{expected}.rtp", f"{expected}.rtcp"}
    wait_until(lambda: {path.name for path in daemon.recordings.iterdir()} == wanted, f"{wanted} are there")


@rows(
    row("R", *U, *L, "R c f t", "0"),
    row("Rs", *U, *L, "Rs c f t", "0", "Rs c t f", "0", "Rs c t f", "E50"),
    row("Cs", *U, *L, "Cs c name f t", "0", "Cs c x t f", "0", "Cs c x t f", "E65"),
    row("-a", *U, *L, options=("-a",)),
)
def test_request_for_a_capture_as_the_c_program_takes_it(row: Row, start_daemon: StartDaemon) -> None:
    """`--compat -P`."""
    daemon = start_daemon("--compat", "-P", *row.options)
    check(daemon, row.talk)
    assert daemon.command("X") == "0"
    wanted = {"R": {"c=f.o.rtp", "c=f.o.rtcp"}, "Cs": {"name"}}.get(row.name, {"c=f.pcap"})
    wait_until(lambda: {path.name for path in daemon.recordings.iterdir()} == wanted, f"{wanted} are there")


def test_a_copy_to_a_host_has_a_pair_of_ports(start_daemon: StartDaemon, make_call: MakeCall) -> None:
    """`C … udp:HOST:PORT` sends RTP to the port and RTCP to the next."""
    call = make_call(start_daemon())
    with Phone() as receiver:
        port, host = call.daemon.command(
            f"Cp {call.call_id} udp:{receiver.host}:{receiver.port} {call.from_tag} {call.to_tag}"
        ).split()
        said, _ = call.talk(2)
        report = call.caller.report(call.at_caller_side)
        assert receiver.hear(2) == said
        assert receiver.hear_rtcp() == [report]
        assert host == "127.0.0.1"
        call.caller.say(call.at_caller_side, 1)
        assert receiver.rtp.recvfrom(2000)[1] == (host, int(port))
