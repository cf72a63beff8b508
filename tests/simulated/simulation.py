"""Lets a world live, come to rest, and be judged. The same seed makes the same world, to the last message."""

import logging
import shutil
import tempfile
from pathlib import Path

from tests.simulated.peace import rest
from tests.simulated.scenario import KINDS, Scene, live
from tests.simulated.verdict import Verdict

_MEMORY = Path("/dev/shm")


def simulate(seed: int, kinds: tuple[str, ...] = KINDS) -> tuple[list[str], Scene]:
    """Return what is wrong, and the world."""
    folder = Path(tempfile.mkdtemp(prefix="bursar-sim-", dir=_MEMORY if _MEMORY.is_dir() else None))
    logging.disable(logging.CRITICAL)  # of what goes wrong here on purpose, the product tells at length
    scene = Scene(seed, folder)
    try:
        verdict = Verdict(scene)
        live(scene, verdict, kinds)
        return rest(scene, verdict), scene
    finally:
        for sidecar in scene.sidecars:
            if sidecar.alive:
                sidecar.crash()
        scene.world.close()
        logging.disable(logging.NOTSET)
        shutil.rmtree(folder, ignore_errors=True)
