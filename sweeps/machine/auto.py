"""`resources: {gpus: auto}`: how many trials share a card is found out by measuring one."""

from __future__ import annotations

from collections.abc import Callable

from sweeps.errors import SweepError
from sweeps.machine.cost import Measured, costliest, share_of_card, trials_on_a_card
from sweeps.machine.machine import Machine
from sweeps.machine.probe import measure
from sweeps.spec import SweepSpec
from sweeps.storage.folder import SweepFolder

AUTO = "auto"


def with_gpus(spec: SweepSpec, gpus: float) -> SweepSpec:
    """`spec` with this many GPUs a trial."""
    resources = spec.resources.model_copy(update={"gpus": float(gpus)})
    return spec.model_copy(update={"resources": resources})


def as_found(spec: SweepSpec, folder: SweepFolder) -> SweepSpec:
    """`spec` with what an earlier session of the sweep in `folder` found out."""
    if spec.resources.gpus != AUTO:
        return spec
    return with_gpus(spec, folder.load_spec().resources.gpu_share)


def find_gpus(spec: SweepSpec, machine: Machine, say: Callable[[str], None]) -> SweepSpec:
    """`spec` with a number in place of `auto`; measured where the machine has a GPU.

    Args:
        spec: checked.
        machine: what the trials share.
        say: takes a line of progress.

    Raises:
        SweepError: the trial that was to be measured failed, or the GPUs are those of a cluster.
    """
    if spec.resources.gpus != AUTO:
        return spec
    if not machine.gpus:
        return with_gpus(spec, 0)
    if not machine.here:
        raise SweepError(
            f"{spec.source}: resources.gpus: auto measures the card of this machine, not those of a "
            "cluster; give a number, such as the one that `--check --probe` finds on one of its nodes"
        )
    say("resources.gpus auto: measuring a trial (some steps, two evaluations)")
    found = spread(spec, machine, measure(costliest(with_gpus(spec, 1))))
    say(f"resources.gpus auto: {found.resources.gpu_share:g} of a card a trial")
    return found


def spread(spec: SweepSpec, machine: Machine, measured: Measured) -> SweepSpec:
    """`spec` with the share of a card that a trial like the measured one takes."""
    cores = machine.cpus / machine.gpus / spec.resources.cpus
    trials = trials_on_a_card(measured.card_bytes, measured.card_total, cores)
    return with_gpus(spec, share_of_card(trials))
