"""The scripts against the model, in random order, with every reply and every counter compared after each step (A1)."""

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.ledger.machine import TALLY
from tests.ledger.machine_whole import Machine
from tests.ledger.seam import Clocked


def run(clocked: Clocked, examples: int, steps: int, seed: int) -> None:
    TALLY.clear()
    Machine.clocked = clocked
    run_state_machine_as_test(
        hypothesis.seed(seed)(Machine),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, derandomize=False, print_blob=True,
            suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
        ),
    )  # fmt: skip
    print(
        f"seed {seed}: {sum(TALLY.values())} commands:",
        *(f"{n} {v.decode()} {c}," for (n, v), c in sorted(TALLY.items())),
    )


def test_the_scripts_say_what_the_model_says(clocked: Clocked):
    run(clocked, examples=80, steps=60, seed=1)


@pytest.mark.slow
def test_the_scripts_say_what_the_model_says_for_longer(clocked: Clocked):
    run(clocked, examples=250, steps=80, seed=2)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_the_scripts_say_what_the_model_says_for_very_long(clocked: Clocked, seed: int):
    run(clocked, examples=2_000, steps=60, seed=seed)
