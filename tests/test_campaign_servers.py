"""The servers campaign in short: over mirrors that fail at random a read is right or an error, in time."""

import random
from pathlib import Path

from tests.campaigns import server_faults, servers
from tests.campaigns.server_documents import Trials, try_documents
from tests.campaigns.server_tally import Tally, figures
from tests.campaigns.servers import Campaign
from tests.kit.faults import Fault
from tests.kit.images import BuiltImage
from tests.kit.requirements import require, require_fuse

SEED = 5
READS = 300
MOUNTS = 4


def test_reads(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """No wrong byte, no password told, no forbidden redirect followed; no error with a healthy location."""
    require_fuse()
    require("openssl")
    tally = Campaign(iso_md5, tmp_path, SEED).run([0], READS)
    assert all(figure.met for figure in figures(tally, Trials())), (tally.broken, tally.log[:5])
    assert tally.outcomes.keys() == {"right", "error"}, "it went both ways, and no other"
    assert tally.outcomes.total() == READS
    assert tally.asked > READS, "the reads were cold, and met faults"


def test_mounts(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A mount whose .jigdo and template meet faults shows the right bytes, or ends in one clear line."""
    require_fuse()
    trials = try_documents(iso_md5, tmp_path, SEED, MOUNTS)
    assert trials.broken == []
    assert trials.outcomes.keys() == {"worked", "refused"}


def test_the_same_seed_does_the_same(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A round can be done again: all that is drawn comes from the seed and its number."""
    paths = list(iso_md5.parts.values())
    with server_faults.serving_house(iso_md5.pool, paths, tmp_path) as house:
        drawn = [
            [
                server_faults.draw_plan(dice, house, house.mirrors[:4], path, 1000)
                for dice in [random.Random(seed)]
                for path in sorted(paths)
            ]
            for seed in (1, 1, 2)
        ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_fault_has_its_turn(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """All that the kit's server can do wrong is drawn sooner or later."""
    dice = random.Random(SEED)
    used: set[str] = set()
    with server_faults.serving_house(iso_md5.pool, list(iso_md5.parts.values()), tmp_path) as house:
        for _ in range(200):
            plan = server_faults.draw_plan(dice, house, house.mirrors, "main/a", 1000)
            for behaviour in plan.behaviours:
                faults = (*behaviour.script[:2], behaviour.always)
                used.update(type(fault).__name__ for fault in faults)
    kinds: list[type[Fault]] = [Fault, *Fault.__subclasses__()]
    assert used == {kind.__name__ for kind in kinds}


def test_broken_promises_show() -> None:
    """Each promise has a figure that is not met when it is broken."""
    assert all(figure.met for figure in figures(Tally(), Trials()))
    for what in ("wrong", "lost", "late", "forbidden", "leaked", "stuck"):
        tally = Tally()
        tally.tell(what, "a read")
        assert sum(not figure.met for figure in figures(tally, Trials())) == 1
    for tally in (Tally(leaks=1), Tally(downgrades=1)):
        assert sum(not figure.met for figure in figures(tally, Trials())) == 1
    assert sum(not figure.met for figure in figures(Tally(), Trials(broken=["a mount"]))) == 1


def test_its_bounds_hold_together() -> None:
    """A read has time for four mirrors that stall in all rounds, so that its timeout is no excuse."""
    options = dict(zip(servers.OPTIONS[::2], servers.OPTIONS[1::2], strict=True))
    assert 3 * 4 * float(options["--stall-timeout"].removesuffix("s")) < servers.READ_TIMEOUT_S
